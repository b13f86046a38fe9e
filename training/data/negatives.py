"""binary data set + other data sets → **one data set** with more that is negative.

What a detector will meet is wider than the one class that its photos were collected
against: a dog that is only told from cats takes a bus for a dog.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from training.configs.task_sections import NegativesConfig
from training.data import Dataset, load_dataset
from training.data.dataset import Samples, Split
from training.errors import DataError


@dataclass(frozen=True)
class JoinedSamples:
    """Samples of several sources, one after the other."""

    parts: tuple[Samples, ...]
    positions: tuple[tuple[int, int], ...]  # (part, index in it) of each sample

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, index: int) -> str:
        """Where the image comes from."""
        part, position = self.positions[index]
        return self.parts[part].name(position)

    def inner_name(self, index: int) -> str:
        """Its name inside its own source."""
        part, position = self.positions[index]
        return self.parts[part].inner_name(position)

    def read(self, index: int) -> bytes:
        """The image file."""
        part, position = self.positions[index]
        return self.parts[part].read(position)

    def identity(self, index: int) -> str:
        """Which source it is of, and what tells it from others there."""
        part, position = self.positions[index]
        return f"{part} {self.parts[part].identity(position)}"

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "JoinedSamples":
        """Some of the samples, in the order of `indices`."""
        chosen = tuple(self.positions[int(i)] for i in indices)
        return JoinedSamples(self.parts, chosen)


def join(name: str, splits: Sequence[Split]) -> Split:
    """The splits one after the other; all have the same labels."""
    positions = [(p, i) for p, split in enumerate(splits) for i in range(len(split))]
    samples = JoinedSamples(tuple(split.samples for split in splits), tuple(positions))
    return Split(name, samples, np.concatenate([split.labels for split in splits]))


def add_negatives(
    dataset: Dataset, configs: Sequence[NegativesConfig], root: Path
) -> Dataset:
    """The data set with all images of the others as negatives, split by split.

    It is called `cats-dogs + voc2007`: figures on its test split are of all of them.
    Its negative label becomes `not-dog`: what was `cat` now means more. A split that
    `dataset` lacks goes to its train split, to be cut from there. Their labels do not
    matter, so one class folder is enough.

    Raises:
        DataError: an image to exclude is not there: a list that does not fit its data
            would leave in what it was made to keep out.
    """
    parts = {name: [split] for name, split in dataset.parts.items()}
    names = [dataset.name]
    for config in configs:
        other = load_dataset(root / config.path, trainable=False)
        names.append(other.name)
        missing = set(config.exclude)
        for name, split in other.parts.items():
            files = [PurePath(split.samples.name(i)).name for i in range(len(split))]
            kept = [i for i, file in enumerate(files) if file not in config.exclude]
            missing -= set(files)
            zeros = np.zeros(len(kept), np.int64)
            negative = replace(split, samples=split.samples.select(kept), labels=zeros)
            parts[name if name in parts else "train"].append(negative)
        if missing:
            raise DataError(
                f"{config.path} has no {', '.join(sorted(missing)[:5])}, which "
                "[[negatives]] exclude"
            )
    joined = {name: join(name, splits) for name, splits in parts.items()}
    positive = dataset.label_names[1]
    return replace(
        dataset,
        name=" + ".join(names),
        label_names=(f"not-{positive}", positive),
        parts=joined,
    )
