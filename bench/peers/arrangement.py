"""comparison → **arrangement** → server process: how one server is set up.

Some of these frameworks build their server when a module is imported (decorators) and
start their workers themselves, so an environment variable is the one channel that
reaches all of them alike.
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from bench.model import Decoder, Model
from classifier.bundle import load_bundle

VARIABLE = "BENCH_ARRANGEMENT"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How many processes run sessions of how many threads, and what they batch."""

    processes: int = 1
    threads: int | None = None  # of one run; None: ONNX Runtime's own defaults
    batch: int = 1
    wait_ms: float = 10.0  # the longest wait for mates
    decoders: int = 0  # processes that only decode; 0: decode beside the session
    inline: bool = False  # on the event loop instead of in a thread
    fronts: int = 1  # HTTP processes, where they are separate
    tuned: bool = False  # every switch of the framework that helps, see its file

    def __str__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ", ".join(changed) or "defaults"


@dataclass(frozen=True, slots=True)
class Served:
    """What a server process is told: what to serve, where, and how."""

    bundle: Path
    precision: str
    port: int
    arrangement: Arrangement

    def environment(self) -> dict[str, str]:
        """As a variable for the server's process."""
        fields = dataclasses.asdict(self) | {"bundle": str(self.bundle)}
        return {VARIABLE: json.dumps(fields)}

    @classmethod
    def from_environment(cls) -> "Served":
        """Read it back inside the server's process."""
        fields = json.loads(os.environ[VARIABLE])
        return cls(
            bundle=Path(fields["bundle"]),
            precision=fields["precision"],
            port=fields["port"],
            arrangement=Arrangement(**fields["arrangement"]),
        )

    def load_model(self) -> Model:
        """The bundle with the threads arranged, warm, in the calling process."""
        threads = self.arrangement.threads
        return Model.load(self.bundle, precision=self.precision, threads=threads)

    def load_decoder(self) -> Decoder:
        """Only the half before the session."""
        return Decoder(load_bundle(self.bundle))
