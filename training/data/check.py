"""dataset → **findings**: broken files, one picture twice, test leaking into train.

Nothing is dropped: the owner of the data decides. Two files are duplicates when their
bytes are the same, or when they look the same: equal difference hashes of a small gray
copy bring two images together, and their thumbnails decide.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from classifier.errors import ImageError
from classifier.hardware import available_cores
from classifier.manifest import PreprocessSpec
from classifier.preprocess import preprocess
from training.data.dataset import Dataset, Labels, Samples, Split
from training.errors import DataError

THUMBNAIL = 16  # pixels a side
HASH_SIDE = 8  # 8 x 8 comparisons across and as many down: 128 bits
BAND_BITS = 16  # two images meet where one of eight bands of their hashes is equal
# A band that so many images share (a black border, a blank page) says nothing; they
# meet only where the whole hash is equal. Where that too is shared by so many (the
# frames of a fixed camera), each meets its neighbors in brightness, which it hides.
COMMON = 40
# Mean difference of two thumbnails, in levels of 255, below which they are one picture;
# saving a photo anew as JPEG changes about one.
SAME_PICTURE = 4.0

SPEC = PreprocessSpec(
    height=THUMBNAIL,
    width=THUMBNAIL,
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
    leaks: bool  # one is in train, and the other in validation or test
    contradicts: bool  # their labels differ


@dataclass
class Findings:
    """What a look at every file has brought up."""

    images: dict[str, int] = field(default_factory=dict)  # by split
    labels: dict[str, dict[str, int]] = field(default_factory=dict)  # split → label → n
    broken: list[tuple[str, str]] = field(default_factory=list)  # file, what is wrong
    ignored: list[str] = field(default_factory=list)  # files that are no images
    duplicates: list[Duplicate] = field(default_factory=list)

    @property
    def leaks(self) -> list[Duplicate]:
        """Pictures of train that are in validation or test too."""
        return [found for found in self.duplicates if found.leaks]

    @property
    def contradictions(self) -> list[Duplicate]:
        """The same picture under different labels."""
        return [found for found in self.duplicates if found.contradicts]

    @property
    def sound(self) -> bool:
        """Nothing is broken, leaks or contradicts; plain duplicates may be meant."""
        return not (self.broken or self.leaks or self.contradictions)


@dataclass(frozen=True)
class _Seen:
    """One decodable sample."""

    name: str
    split: str
    label: bytes
    digest: bytes
    thumbnail: NDArray[np.int16]  # [16, 16, 3]
    bits: bytes  # 128-bit difference hash


def check(dataset: Dataset, *, threads: int | None = None) -> Findings:
    """Decode every image and compare all with all, by their hashes."""
    findings = Findings(ignored=list(dataset.ignored))
    seen: list[_Seen] = []
    for split in dataset.parts.values():
        findings.images[split.name] = len(split)
        findings.labels[split.name] = count_labels(split.labels, dataset.label_names)
        for outcome in _look_at_all(split, threads or available_cores()):
            if isinstance(outcome, _Seen):
                seen.append(outcome)
            else:
                findings.broken.append(outcome)
    findings.duplicates = list(_duplicates(seen))
    return findings


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
        pixels = preprocess(data, SPEC).pixels
    except (ImageError, DataError) as error:
        return name, str(error)
    return _Seen(
        name=name,
        split=split.name,
        label=np.asarray(split.labels[index]).tobytes(),
        digest=hashlib.sha256(data).digest(),
        thumbnail=pixels.astype(np.int16),
        bits=difference_hash(pixels),
    )


def difference_hash(thumbnail: NDArray[np.uint8]) -> bytes:
    """128 bits: is a cell brighter than its right neighbor, and than the one below?

    The thumbnail, uint8 [16, 16, 3], is averaged to 9 x 9 cells; brightness and
    contrast of the whole cancel out.
    """
    gray = thumbnail.mean(2)
    edges = np.linspace(0, THUMBNAIL, HASH_SIDE + 2).round().astype(int)[:-1]
    cells = np.add.reduceat(np.add.reduceat(gray, edges, 0), edges, 1)
    spans = np.diff([*edges, THUMBNAIL])
    cells = cells / np.outer(spans, spans)
    across = cells[:-1, :-1] > cells[:-1, 1:]
    down = cells[:-1, :-1] > cells[1:, :-1]
    return np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes()


def _duplicates(seen: list[_Seen]) -> Iterator[Duplicate]:
    met: set[tuple[int, int]] = set()
    for a, b in map(sorted, _candidates(seen)):
        first, second = seen[a], seen[b]
        if (a, b) in met:
            continue
        met.add((a, b))
        exact = first.digest == second.digest
        apart = np.abs(first.thumbnail - second.thumbnail).mean()
        if exact or apart < SAME_PICTURE:
            splits = {first.split, second.split}
            yield Duplicate(
                first.name,
                second.name,
                exact,
                leaks="train" in splits and bool(splits & {"validation", "test"}),
                contradicts=first.label != second.label,
            )


def _candidates(seen: list[_Seen]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose hashes agree in a band, or whose bytes are equal."""
    yield from _pairs(_grouped((sample.digest, n) for n, sample in enumerate(seen)))
    step = BAND_BITS // 8
    for start in range(0, len(seen[0].bits) if seen else 0, step):
        bands = _grouped(
            (sample.bits[start : start + step], n) for n, sample in enumerate(seen)
        )
        rare = [group for group in bands if len(group) <= COMMON]
        yield from _pairs(rare)
        for group in bands:
            if len(group) > COMMON:
                group.sort(key=lambda n: seen[n].thumbnail.mean())
                yield from _pairs(_grouped((seen[n].bits, n) for n in group))


def _grouped(keyed: Iterable[tuple[bytes, int]]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for key, position in keyed:
        groups[key].append(position)
    return [group for group in groups.values() if len(group) > 1]


def _pairs(groups: Iterable[list[int]]) -> Iterator[tuple[int, int]]:
    for group in groups:
        # A file copied a thousand times is told of by its neighbors, not by all pairs.
        yield from (combinations(group, 2) if len(group) <= COMMON else pairwise(group))
