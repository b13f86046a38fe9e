"""many labels → **two**: a binary question asked of a data set with more classes."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from classifier.texts import MAX_LABEL_CHARACTERS
from training.data.dataset import Dataset, Labels
from training.data.folder import nfc
from training.errors import DataError


def as_written(wanted: tuple[str, ...], labels: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted names, each as it stands among the labels, where it does at all.

    A name that is the same comes before one that differs in its form of Unicode alone.
    """
    known = {nfc(label): label for label in labels} | {label: label for label in labels}
    return tuple(known.get(name, known.get(nfc(name), name)) for name in wanted)


def as_binary(dataset: Dataset, positive: tuple[str, ...]) -> Dataset:
    """`positive` labels against all others: label 0 is the negative, 1 the positive.

    With one positive label the two are called `not-dog` and `dog`, with several
    `dog-or-wolf`, or `beagle-or-24-others` where that is too long; a data set of two
    labels keeps both names.

    Of several labels an image one that is positive is enough; without any it is
    negative. A positive label may write accents in another form of Unicode than the
    data does.

    Raises:
        DataError: a positive label is unknown or named twice, or nothing could be
            negative.
    """
    positive = as_written(positive, dataset.label_names)
    twice = [name for name in positive if positive.count(name) > 1]
    if twice:
        raise DataError(f"{twice[0]!r} is named twice among the positive labels")
    unknown = sorted(set(positive) - set(dataset.label_names))
    all_are = len(positive) == len(dataset.label_names) and not dataset.multi_label
    if unknown or all_are:
        raise DataError(
            f"{list(positive)} cannot be the positive labels of {dataset.name}, whose "
            f"labels are {list(dataset.label_names)}"
        )
    ones = [k for k, name in enumerate(dataset.label_names) if name in positive]
    others = [name for name in dataset.label_names if name not in positive]
    name = "-or-".join(positive)
    if len(f"not-{name}") > MAX_LABEL_CHARACTERS:
        name = f"{positive[0]}-or-{len(positive) - 1}-others"
    parts = {
        key: replace(split, labels=_has_any(split.labels, ones))
        for key, split in dataset.parts.items()
    }
    two = len(others) == 1 and not dataset.multi_label
    names = (others[0] if two else f"not-{name}", name)
    return replace(dataset, label_names=names, groups=(None, None), parts=parts)


def _has_any(labels: Labels, some: list[int]) -> NDArray[np.int64]:
    """0 or 1 for each image: is one of its labels among some? [N]."""
    if labels.ndim > 1:
        return np.asarray(labels[:, some].any(1), np.int64)
    return np.isin(labels, some).astype(np.int64)
