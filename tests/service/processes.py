"""The real service as a real process: `with serve(models) as service`."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Service:
    """A running service; its log is read line by line as it is asked for."""

    process: "subprocess.Popen[str]"
    host: str = ""
    port: int = 0
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"

    def logged(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first log line with that event and those fields; reads until it comes."""
        for line in self.lines:
            if _matches(line, event, fields):
                return line
        assert self.process.stdout is not None
        for text in self.process.stdout:
            if text.startswith("{"):
                line = json.loads(text)
                self.lines.append(line)
                if _matches(line, event, fields):
                    return line
        raise AssertionError(f"the service ended without logging {event} {fields}")

    def metric(self, name: str, **labels: str) -> float:
        """One sample of the metrics page; 0 when it is not there yet."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=20) as page:  # noqa: S310
            text = page.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def _matches(line: dict[str, Any], event: str, fields: dict[str, Any]) -> bool:
    return line.get("event") == event and fields.items() <= line.items()


@contextmanager
def serve(
    models: Path, *, folder: Path = REPOSITORY, **environment: str
) -> Iterator[Service]:
    """Start `linnaeus serve` in a folder, on a free port, and end it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LINNAEUS_")}
    env |= {
        "LINNAEUS_MODELS": str(models),
        "LINNAEUS_PORT": "0",
        "LINNAEUS_LOG_FORMAT": "json",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "cli.py"), "serve"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    service = Service(process)
    try:
        url = service.logged("listening", process="leader")["url"]
        service.host, _, port = url.removeprefix("http://").rpartition(":")
        service.port = int(port)
        yield service
    finally:
        process.terminate()
        if process.stdout is None or process.stdout.closed:
            process.wait(timeout=60)
        else:
            process.communicate(timeout=60)
