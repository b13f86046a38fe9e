"""Real data and bundles, or a skip that says what is missing; a terminal's signals."""

import csv
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# Before anything imports torch or ONNX Runtime: idle threads sleep instead of spinning,
# because several tests start servers and share two cores with them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Hypothesis fails an example that takes 200 ms, as any does while the machine is busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class Photo(NamedTuple):
    """One photo of an ImageNet class, with the truth about it."""

    path: Path
    wnid: str
    class_index: int  # 0 to 999, in the order of sorted wnids
    name: str


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that anyone may look into; that of `tmp_path` is its owner's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the image data sets: LINNAEUS_DATA, or shared/data beside us."""
    folder = Path(os.environ.get("LINNAEUS_DATA", REPOSITORY / "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set LINNAEUS_DATA to their folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def sample_photos(data_dir: Path) -> tuple[Photo, ...]:
    """Sixty photos, each of another ImageNet class."""
    folder = data_dir / "imagenet-samples"
    table = folder / "labels.csv"
    if not table.is_file():
        pytest.skip(f"no sample photos: {table} is missing")
    with table.open(newline="", encoding="utf-8") as rows:
        return tuple(
            Photo(
                folder / row["filename"],
                row["wnid"],
                int(row["class_index"]),
                row["name"],
            )
            for row in csv.DictReader(rows)
        )


@pytest.fixture(scope="session")
def imagenet_bundle() -> Path:
    """The committed ImageNet bundle (its folder of versions)."""
    folder = REPOSITORY / "models" / "imagenet"
    if not folder.is_dir():
        pytest.skip("models/imagenet is missing; `linnaeus pretrained` builds it")
    return folder


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """None is ignored: nohup and shells in the background hand that on to children."""
    wanted = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {each: signal.signal(each, handler) for each, handler in wanted.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
