"""dataset → **findings**: broken files, one picture or label twice, shared pictures.

Nothing is dropped: the owner of the data decides. Two files are duplicates when their
bytes are the same, or when they look the same (`duplicates`).
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from classifier.errors import ImageError
from classifier.hardware import available_cores
from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from training.data.dataset import Dataset, Labels, Samples, Split
from training.data.duplicates import THUMBNAIL, Thumbnails, same_pictures
from training.errors import DataError

APART = {"train", "validation", "test"}  # calibration is of train

# How an image is made small depends on its format: a JPEG is decoded smaller, others
# are reduced by whole blocks. Right at 16 x 16 cells of two or three pixels differ by
# that; their means over 4 x 4 pixels do not.
FINER = 4
SPEC = PreprocessSpec(
    height=FINER * THUMBNAIL,
    width=FINER * THUMBNAIL,
    color="rgb",
    resize="squash",
    short_side=None,
    interpolation="box",
    background=(255, 255, 255),
)


@dataclass(frozen=True)
class Duplicate:
    """Two samples that are one picture."""

    first: str
    second: str
    exact: bool  # the same bytes
    leaks: bool  # they are in two of train, validation and test
    parted: bool  # both are in train, of which a cut can make validation or test
    contradicts: bool  # their labels differ


@dataclass
class Findings:
    """What a look at every file has brought up."""

    reading: str = ""  # how the labels were taken
    read_by: str = ""  # the CSV that had them, and its columns
    images: dict[str, int] = field(default_factory=dict)  # by split
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # split → label → n
    # the same but for case and the like
    labels_alike: list[tuple[str, ...]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)  # file, what is wrong
    ignored: list[str] = field(default_factory=list)  # no images, or in no row
    duplicates: list[Duplicate] = field(default_factory=list)

    @property
    def leaks(self) -> list[Duplicate]:
        """Pictures that are in two of train, validation and test."""
        return [found for found in self.duplicates if found.leaks]

    @property
    def parted(self) -> list[Duplicate]:
        """Pictures twice in train, of which a cut can put one into another split."""
        return [found for found in self.duplicates if found.parted]

    @property
    def contradictions(self) -> list[Duplicate]:
        """The same picture under different labels."""
        return [found for found in self.duplicates if found.contradicts]

    @property
    def sound(self) -> bool:
        """Nothing is broken, leaks, can come to leak or contradicts.

        Plain duplicates may be meant, where no cut can part them.
        """
        wrong = (self.broken, self.leaks, self.parted, self.contradictions)
        return not (any(wrong) or self.labels_alike)


@dataclass(frozen=True)
class _Seen:
    """One decodable sample."""

    name: str
    split: str
    label: bytes
    digest: bytes
    thumbnail: Thumbnails  # [16, 16, 3]


def check(dataset: Dataset, *, threads: int | None = None) -> Findings:
    """Decode every image and compare all with all, by their hashes."""
    findings = Findings(
        reading=reading(dataset),
        read_by=dataset.read_by,
        labels_alike=labels_alike(dataset.label_names),
        ignored=list(dataset.ignored),
    )
    seen: list[_Seen] = []
    for split in dataset.parts.values():
        findings.images[split.name] = len(split)
        findings.labels[split.name] = count_labels(split.labels, dataset.label_names)
        for outcome in _look_at_all(split, threads or available_cores()):
            if isinstance(outcome, _Seen):
                seen.append(outcome)
            else:
                findings.broken.append(outcome)
    # Of test a config decides, which is not known here: `[data] test` can make one.
    train_is_cut = not {"validation", "test"} <= set(dataset.parts)
    findings.duplicates = list(_duplicates(seen, train_is_cut=train_is_cut))
    return findings


def reading(dataset: Dataset) -> str:
    """How the labels were taken, for people, and why where it is not as usual.

    One forgotten label in a CSV makes a multi-label set of it.
    """
    if not dataset.multi_label:
        return f"one label an image{_lists(dataset)}"
    without, several, first = 0, 0, ""
    for split in dataset.parts.values():
        counts = split.labels.sum(1, dtype=np.int64)  # [N]
        odd = np.flatnonzero(counts != 1)
        without += int((counts == 0).sum())
        several += int((counts > 1).sum())
        if len(odd) and not first:
            first = f"; the first is {split.samples.name(int(odd[0]))}"
    return (
        f"several labels an image (multi-label): {without} without one, {several} "
        f"with more than one{first}"
    )


def _lists(dataset: Dataset) -> str:
    """Cells of a CSV that may be lists: each list is a label of its own."""
    found = [name for name in dataset.label_names if re.search("[,;]", name)]
    if not (dataset.read_by and found):
        return ""
    count = f"{len(found)} label{'s have' if found[1:] else ' has'}"
    return (
        f"; {count} a comma or semicolon, and only | parts labels; the first is "
        f"{found[0]!r}"
    )


def labels_alike(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Labels that differ only in case, blanks, hyphens or underscores.

    Most are one label, written by two people. Those of one letter are not: upper and
    lower case are what is told apart in handwriting.
    """
    writings: dict[str, list[str]] = {}
    for name in sorted(names):
        if len(name) > 1:
            read = re.sub(r"[\s_-]+", " ", name).casefold()
            writings.setdefault(read, []).append(name)
    return [tuple(same) for same in writings.values() if len(same) > 1]


def count_labels(labels: Labels, names: tuple[str, ...]) -> dict[str, int]:
    """How often each label occurs."""
    counts = (
        labels.sum(0, dtype=np.int64)
        if labels.ndim > 1
        else np.bincount(labels.astype(np.int64), minlength=len(names))
    )
    return dict(zip(names, counts.tolist(), strict=True))


def _look_at_all(split: Split, threads: int) -> Iterator[_Seen | tuple[str, str]]:
    def look(index: int) -> _Seen | tuple[str, str]:
        return _look(split.samples, index, split)

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(look, range(len(split)))


def _look(samples: Samples, index: int, split: Split) -> _Seen | tuple[str, str]:
    name = samples.name(index)
    try:
        data = samples.read(index)
        thumbnail = _thumbnail(data)
    except (ImageError, DataError) as error:
        return name, str(error)
    return _Seen(
        name=name,
        split=split.name,
        label=np.asarray(split.labels[index]).tobytes(),
        digest=hashlib.sha256(data).digest(),
        thumbnail=thumbnail,
    )


def _thumbnail(data: bytes) -> Thumbnails:
    """Means of the blocks of a larger one, uint8 [16, 16, 3]."""
    pixels = preprocess(data, SPEC).pixels
    blocks = pixels.reshape(THUMBNAIL, FINER, THUMBNAIL, FINER, -1)
    return blocks.mean((1, 3), dtype=np.float32).round().astype(np.uint8)


def _duplicates(seen: list[_Seen], *, train_is_cut: bool) -> Iterator[Duplicate]:
    if not seen:
        return
    thumbnails = np.stack([sample.thumbnail for sample in seen])
    for a, b, exact in same_pictures([one.digest for one in seen], thumbnails):
        first, second = seen[a], seen[b]
        splits = {first.split, second.split}
        yield Duplicate(
            first.name,
            second.name,
            exact,
            leaks=len(splits & APART) > 1,
            parted=train_is_cut and splits == {"train"},
            contradicts=first.label != second.label,
        )
