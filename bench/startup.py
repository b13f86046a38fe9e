"""checkout → **installation size and seconds to ready**, in a fresh environment.

Makes the environment that `make serve` makes, in a temporary folder, and starts the
service from it. A round times three processes after one another, so that a busy moment
of the machine hits all of them: Python itself, the service's imports, and the service
until `/readyz` answers 200.

    python -m bench.startup --rounds 11
"""

import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from bench.circumstances import REPOSITORY, write_record
from bench.launch import inherited
from bench.options import add_record, command_line

MB = 1_000_000
START_TIMEOUT_S = 60.0
IMPORTS = "import service.commands.serve"


def install(folder: Path) -> None:
    """Make a fresh environment with the service for the CPU in it."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pinned = ["--constraint", REPOSITORY / "constraints.txt"]
    subprocess.run([*pip, *pinned, "--editable", f"{REPOSITORY}[cpu]"], check=True)


def occupied_bytes(folder: Path) -> int:
    """What the files take on the disk, in blocks, links not followed."""
    return sum(p.lstat().st_blocks * 512 for p in folder.rglob("*"))


def sizes(environment: Path) -> dict[str, float]:
    """MB of the whole environment, and of its largest packages with all their files."""
    [site] = environment.glob("lib/python*/site-packages")
    packages = {}
    for info in site.glob("*.dist-info"):
        package = PathDistribution(info)
        files = [Path(str(f.locate())) for f in package.files or ()]
        folders = {site / f.parts[0] for f in package.files or () if f.parts[0] != ".."}
        known = sum(occupied_bytes(f) for f in folders if f.is_dir())
        single = sum(f.lstat().st_blocks * 512 for f in files if f.parent == site)
        packages[package.metadata["Name"]] = round((known + single) / MB, 1)
    largest = sorted(packages, key=lambda name: -packages[name])[:8]
    return {
        "whole": round(occupied_bytes(environment) / MB, 1),
        **{name: packages[name] for name in largest},
    }


def seconds_to_end(command: Sequence[str | Path]) -> float:
    """From start to end of a process."""
    started_s = time.perf_counter()
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return time.perf_counter() - started_s


def seconds_to_ready(python: Path, bundle: str) -> float:
    """From the start of `linnaeus serve` to its first 200 from `/readyz`."""
    command = [python.parent / "linnaeus", "serve", "--port", "0", "--load", bundle]
    started_s = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=inherited(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        host, port = listening(process)
        while ready_status(host, port) != http.HTTPStatus.OK:
            if time.perf_counter() - started_s > START_TIMEOUT_S:
                raise SystemExit(f"not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(0.002)
        return time.perf_counter() - started_s
    finally:
        process.terminate()
        process.communicate()


def listening(process: subprocess.Popen[bytes]) -> tuple[str, int]:
    """Host and port, from the log line that says that the port is open."""
    said = []
    for line in process.stdout or ():
        said.append(line.decode())
        if b'"listening"' in line:
            host, port = json.loads(line)["url"].removeprefix("http://").split(":")
            return host, int(port)
    raise SystemExit(f"the service ended before it listened: {''.join(said)}")


def ready_status(host: str, port: int) -> int:
    """The status of `/readyz`."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/readyz")
    return connection.getresponse().status


def measure(python: Path, *, bundle: str, rounds: int) -> dict[str, Any]:
    """Seconds of each stage: the median over interleaved rounds, and every round."""
    stages = {
        "python": lambda: seconds_to_end([python, "-c", ""]),
        "imports": lambda: seconds_to_end([python, "-c", IMPORTS]),
        "ready": lambda: seconds_to_ready(python, bundle),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for number in range(rounds + 1):
        for name, stage in stages.items():
            taken = stage()
            if number:  # the first round fills the file cache and compiles
                seconds[name].append(round(taken, 4))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {"median_s": medians, "rounds_s": seconds}


def main() -> None:
    """Measure, print and write the record."""
    parser = command_line("bench.startup", __doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--bundle", default="imagenet")
    parser.add_argument(
        "--environment", type=Path, help="measure this one; default: a fresh one"
    )
    add_record(parser, "startup.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = given.environment or Path(folder)
        python = environment / "bin/python"
        if not given.environment:
            install(environment)
        size = sizes(environment)
        result = measure(python, bundle=given.bundle, rounds=given.rounds)
    record = {"bundle": given.bundle, "installed_mb": size, **result}
    write_record(given.json, record)
    print(json.dumps(record["installed_mb"], indent=2))
    print(json.dumps(record["median_s"], indent=2))


if __name__ == "__main__":
    main()
