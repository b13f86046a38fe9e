"""What the tests of the loop share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.training.loop.runs import CONFIG, write_config, write_digits
from training.configs.config import read_config
from training.loop.distributed import Ranks
from training.loop.runs import train


class Machine:
    """A clock that only work moves, in place of the module `time`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        """Seconds since the beginning."""
        return self.now_s

    def work(self, seconds: float) -> None:
        """Something takes so long."""
        self.now_s += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Where steps are timed, and nothing else goes on."""
    ours = Machine()
    for module in ("timing", "pace"):
        monkeypatch.setattr(f"training.loop.{module}.time", ours)
    return ours


@pytest.fixture
def same_sums() -> Iterator[None]:
    """One thread: the same sums in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Trains an epoch on a few digits, and returns the folder of the run."""
    write_digits(tmp_path, train=60, test=20)
    path = write_config(tmp_path, CONFIG.replace("epochs = 4", "epochs = 1"))
    alone = Ranks(0, 1, torch.device("cpu"))

    def begin(*changes: str) -> Path:
        config, folder = read_config(path, changes), tmp_path / "run"
        train(config, root=tmp_path, folder=folder, ranks=alone, live=None)
        return folder

    return begin
