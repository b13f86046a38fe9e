"""data folder → **photos**: for int8 ranges, for the gate, and for golden examples.

Three sets of ordinary photos that no ImageNet network was trained on, and 60 labelled
ImageNet photos for accuracy. All go through `classifier.preprocess`.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classifier.errors import ImageError
from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from training.data import load_dataset
from training.data.pieces import in_pieces
from training.errors import DataError
from training.files import ours
from training.quantization.gate import Labelled, Pixels

SETS = ("cats-dogs.tar", "fruits-fine-grained.tar", "voc2007-multilabel.tar")
IMAGENET, LABELS = "imagenet-samples", "labels.csv"
CALIBRATION_PHOTOS = 100  # of each set, from train
BATCH = 8  # images; more is slower on a CPU


@dataclass(frozen=True)
class Photos:
    """Batches of pixels, uint8 [N, H, W, C]."""

    calibration: Sequence[Pixels]  # from the train splits, for int8 ranges
    unlabelled: Sequence[Pixels]  # from the other splits, for agreement
    labelled: Labelled  # ImageNet photos; truth is the class index
    sha256: dict[str, str]  # file → hash

    @property
    def golden(self) -> Pixels:
        """Two of `cats-dogs` and one of `voc2007`, by their places: [3, H, W, C]."""
        photos = np.concatenate(list(self.unlabelled))
        return photos[:: len(photos) // 3][:3]


def load_photos(root: Path, spec: PreprocessSpec) -> Photos:
    """Read and preprocess the photos of a data folder.

    Raises:
        DataError: a set is missing or damaged; the message names it.
    """
    needed = (*SETS, f"{IMAGENET}/{LABELS}")
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise DataError(f"{root} lacks {', '.join(missing)}")
    calibration, unlabelled = [], []
    for name in SETS:
        parts = load_dataset(root / name).parts
        train = parts["train"].samples
        chosen = np.linspace(0, len(train) - 1, CALIBRATION_PHOTOS).astype(np.int64)
        calibration.append(parts["train"].select(chosen).pixels(spec))
        unlabelled += [p.pixels(spec) for k, p in parts.items() if k != "train"]
    hashes = {name: file_sha256(root / name) for name in SETS}
    hashes[f"{IMAGENET}/{LABELS}"] = file_sha256(root / IMAGENET / LABELS)
    return Photos(
        calibration=in_pieces(np.concatenate(calibration), size=BATCH),
        unlabelled=in_pieces(np.concatenate(unlabelled), size=BATCH),
        labelled=load_imagenet(root / IMAGENET, spec),
        sha256=hashes,
    )


def load_imagenet(folder: Path, spec: PreprocessSpec) -> Labelled:
    """The labelled ImageNet photos that `labels.csv` lists.

    Raises:
        DataError: the list or a photo is missing or damaged.
    """
    with ours(folder / LABELS), (folder / LABELS).open(newline="") as file:
        rows = list(csv.DictReader(file))
        names = [row["filename"] for row in rows]
        truth = np.array([int(row["class_index"]) for row in rows])
    try:
        files = [(folder / name).read_bytes() for name in names]
        pixels = np.stack([preprocess(data, spec).pixels for data in files])
    except (OSError, ImageError, ValueError) as error:  # or there is none
        raise DataError(f"{folder}: {error}") from error
    return Labelled(folder.name, in_pieces(pixels, size=BATCH), truth)


def file_sha256(path: Path) -> str:
    """Hash of a file's contents, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
