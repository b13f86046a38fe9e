"""workload → **contestants**: who is compared, and how each is set up.

Each peer takes part twice. *Documented* is what its own pages recommend for a model
that can batch, with the numbers of their examples. *Tuned* is the best that we found
for each workload on two cores; `python -m bench.peers.tune` searches.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.bodies import Body, multipart, raw
from bench.circumstances import REPOSITORY
from bench.peers.arrangement import Arrangement, Served
from bench.workloads import Workload
from classifier.hardware import available_cores

PEERS_PYTHON = REPOSITORY / ".venv-peers/bin/python"

# Nobody's server reports on us while it is measured.
SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}


DEFAULTS = Arrangement()


@dataclass(frozen=True, slots=True)
class Contestant:
    """One server in one setting."""

    name: str
    setting: str  # "documented", "tuned", or for ours the precision
    command: Callable[[Served], list[str]]
    arrangement: Arrangement = DEFAULTS
    body: Callable[[bytes], Body] = raw
    environment: Mapping[str, str] = field(default_factory=dict)
    precision: str | None = None  # overrides the comparison's

    @property
    def title(self) -> str:
        """Name and setting, as in the table."""
        return f"{self.name}, {self.setting}"


def module(name: str) -> Callable[[Served], list[str]]:
    """A peer's file, run in the peers' environment."""
    return lambda _: [str(PEERS_PYTHON), "-m", f"bench.peers.{name}"]


def bentoml(service: str) -> Callable[[Served], list[str]]:
    """BentoML starts its own processes from a name."""
    binary = str(PEERS_PYTHON.with_name("bentoml"))
    target = f"bench.peers.bentoml_server:{service}"

    def command(served: Served) -> list[str]:
        listen = ["--host", "127.0.0.1", "--port", str(served.port)]
        return [binary, "serve", target, *listen]

    return command


def images_field(image: bytes) -> Body:
    """BentoML's batchable API takes a list, so a form holds a list of one."""
    return multipart(image, field="images")


def ours(served: Served) -> list[str]:
    """Linnaeus as its README starts it; everything else is its own choice."""
    return [sys.executable, "-m", "cli", "serve"]


def our_environment(served: Served) -> dict[str, str]:
    """What a user would set: where, which models, which precision."""
    version = served.bundle
    return {
        "LINNAEUS_HOST": "127.0.0.1",
        "LINNAEUS_PORT": str(served.port),
        "LINNAEUS_MODELS": str(version.parent.parent),
        "LINNAEUS_LOAD": version.parent.name,
        "LINNAEUS_PRECISION": served.precision,
        "LINNAEUS_DEVICE": "cpu",  # as the peers, on whatever machine
        "LINNAEUS_LOG_LEVEL": "warning",
    }


def documented() -> list[Contestant]:
    """Every peer as its documentation recommends; the same for each workload."""
    return [
        Contestant("FastAPI", "documented", module("fastapi_server")),
        Contestant(
            "LitServe",
            "documented",
            module("litserve_server"),
            Arrangement(batch=16, wait_ms=10),
        ),
        Contestant(
            "BentoML",
            "documented",
            bentoml("Batched"),
            Arrangement(batch=32),
            body=images_field,
        ),
        Contestant(
            "Mosec",
            "documented",
            module("mosec_server"),
            Arrangement(processes=2, batch=16, wait_ms=10, decoders=4),
        ),
        Contestant(
            "Ray Serve",
            "documented",
            module("ray_server"),
            Arrangement(batch=16, wait_ms=10),
        ),
    ]


# Workload → peer → the best arrangement of a search on two cores. That search was
# narrower than `bench.peers.tune` is now: one thread a session for all but FastAPI, a
# wait of 1 ms, no stage that decodes, fewer batch sizes, Ray Serve without HAProxy.
# Behind HAProxy four arrangements for digits were tried again: one and two replicas,
# with and without batches.
TUNED: dict[str, dict[str, Arrangement]] = {
    "photos": {
        "FastAPI": Arrangement(processes=2, threads=1, inline=True, tuned=True),
        "LitServe": Arrangement(processes=2, threads=1, tuned=True),
        "BentoML": Arrangement(processes=2, threads=1, tuned=True),
        "Mosec": Arrangement(processes=2, threads=1, batch=4, wait_ms=1, tuned=True),
        "Ray Serve": Arrangement(processes=2, threads=1, tuned=True),
    },
    "digits": {
        "FastAPI": Arrangement(processes=2, threads=1, inline=True, tuned=True),
        "LitServe": Arrangement(
            processes=1, threads=1, batch=16, wait_ms=1, fronts=2, tuned=True
        ),
        "BentoML": Arrangement(processes=2, threads=1, batch=32, tuned=True),
        "Mosec": Arrangement(processes=2, threads=1, batch=32, wait_ms=1, tuned=True),
        "Ray Serve": Arrangement(
            processes=2, threads=1, batch=16, wait_ms=1, tuned=True
        ),
    },
}

SEARCHED_CORES = 2


def spread(arrangement: Arrangement, cores: int) -> Arrangement:
    """One of the search, on a machine with other cores: one a core stays one a core.

    Our own lanes follow the cores, too.
    """
    here = {SEARCHED_CORES: cores}
    return replace(
        arrangement,
        processes=here.get(arrangement.processes, arrangement.processes),
        fronts=here.get(arrangement.fronts, arrangement.fronts),
    )


# Ray Serve, "Enable High Throughput": both together, the proxy then is HAProxy.
THROUGHPUT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}


def arrange(name: str, arrangement: Arrangement) -> Contestant:
    """A peer by name in a tuned arrangement."""
    match name:
        case "BentoML":
            batched = arrangement.batch > 1
            return Contestant(
                name,
                "tuned",
                bentoml("Batched" if batched else "Single"),
                arrangement,
                body=images_field if batched else raw,
            )
        case "Ray Serve":
            command = module("ray_server")
            return Contestant(
                name, "tuned", command, arrangement, environment=THROUGHPUT
            )
    files = {"FastAPI": "fastapi", "LitServe": "litserve", "Mosec": "mosec"}
    return Contestant(name, "tuned", module(f"{files[name]}_server"), arrangement)


def contestants(
    workload: Workload, winners: Mapping[str, Arrangement] | None = None
) -> list[Contestant]:
    """All of them for one workload, ours first; `winners` of a search are the tuned."""
    # `auto` is what a user gets who sets nothing; fp32 is the graph that peers run.
    precisions = ["fp32", "auto"] if workload.name == "photos" else ["fp32"]
    own = [Contestant("Linnaeus", p, ours, precision=p) for p in precisions]
    cores = available_cores()
    tuned = {
        name: spread(arrangement, cores)
        for name, arrangement in TUNED[workload.name].items()
    }
    arranged = (tuned | dict(winners or {})).items()
    return [*own, *documented(), *(arrange(*each) for each in arranged)]


def environment(contestant: Contestant, served: Served) -> dict[str, str]:
    """The variables that a contestant's process gets on top of ours."""
    own = our_environment(served) if contestant.name == "Linnaeus" else {}
    path = {"PYTHONPATH": str(REPOSITORY)}
    return {
        **SILENT,
        **path,
        **contestant.environment,
        **served.environment(),
        **own,
    }


def peer_versions(python: Path = PEERS_PYTHON) -> dict[str, str]:
    """The peers' versions, as their own environment has them."""
    names = ("bentoml", "fastapi", "litserve", "mosec", "ray", "uvicorn")
    script = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", script, *names], check=True, capture_output=True, text=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def is_installed(python: Path = PEERS_PYTHON) -> bool:
    """Whether the peers' environment exists."""
    return python.exists()
