"""bundle + split → **evaluation**: every figure of a model, measured as it is served.

Images go through `classifier/` from their bytes to their logits, so what is measured is
what a request would get. Torch has no part in it. Axes: N images, K labels.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifier import Classifier
from classifier.errors import ImageError
from classifier.hardware import available_cores
from classifier.manifest import Label, Manifest, Task
from training.data.dataset import Dataset, Split, first_of
from training.data.folder import nfc, wnid_of
from training.errors import DataError
from training.evaluation.figures import measure
from training.evaluation.intervals import Intervals
from training.evaluation.metrics import Booleans, ClassRow, Floats, Metrics, Truth

LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """What a bundle did on a split; `metrics` are plain numbers by name."""

    dataset: str
    split: str
    labels: tuple[str, ...]  # of the columns below
    metrics: Metrics
    intervals: Intervals  # 95 %
    rows: list[ClassRow]
    truth: Truth
    scores: Floats  # [N, K]
    thresholds: tuple[float, ...] | None
    names: list[str] = field(repr=False)  # of the images
    negative: str | None = None  # what a binary bundle calls its no

    @property
    def n(self) -> int:
        """How many images."""
        return len(self.truth)

    def no(self, k: int) -> str:
        """What the opposite of label k is called."""
        return self.negative or f"not {self.labels[k]}"

    @property
    def predicted(self) -> Truth:
        """The decisions: class index [N], or bool [N] or [N, K]."""
        if self.thresholds is None:
            best: Truth = self.scores.argmax(axis=1)
            return best
        decided = self.scores >= np.asarray(self.thresholds)
        return decided if self.truth.ndim > 1 else decided[:, 0]

    @property
    def answer_scores(self) -> tuple[Floats, Booleans]:
        """(score, right) of each answer: per image, or per label for sigmoids."""
        if self.thresholds is None:
            return self.scores.max(axis=1), self.predicted == self.truth
        return self.scores.ravel(), self.truth.ravel().astype(bool)

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the images' own."""
        named = [{"label": self.labels[row.index], **_plain(row)} for row in self.rows]
        return {
            "dataset": self.dataset,
            "split": self.split,
            "n": self.n,
            "metrics": self.metrics,
            "intervals_95": {k: list(v) for k, v in sorted(self.intervals.items())},
            "per_class": named,
        }


def _plain(row: ClassRow) -> dict[str, float | None]:
    return {
        "n": row.n,
        "predicted": row.predicted,
        "precision": row.precision,
        "recall": row.recall,
        "f1": row.f1,
    }


def evaluate(classifier: Classifier, dataset: Dataset, split: Split) -> Evaluation:
    """Run a split through a bundle and measure everything that its task knows.

    Raises:
        DataError: the data's labels are not the bundle's, or an image is damaged.
    """
    manifest = classifier.manifest
    truth = align(split.labels, dataset, manifest)
    logits = run(classifier, split)
    scores = classifier.postprocessor.scores(logits)  # float32 [N, K]
    values, intervals, rows = measure(manifest, logits, truth, scenes=split.scenes)
    return Evaluation(
        dataset=dataset.name,
        split=split.name,
        labels=column_names(manifest),
        metrics=values,
        intervals=intervals,
        rows=rows,
        truth=truth,
        scores=scores,
        thresholds=manifest.postprocess.thresholds,
        names=[split.samples.name(i) for i in range(len(split))],
        negative=manifest.labels[0].name if manifest.task is Task.BINARY else None,
    )


def run(classifier: Classifier, split: Split) -> NDArray[np.float32]:
    """Logits float32 [N, K] of every image; a core an image, as under load."""
    worker = classifier.with_threads(1)

    def logits(index: int) -> NDArray[np.float32]:
        try:
            ready = worker.preprocess(split.samples.read(index))
        except ImageError as error:
            raise DataError(f"{split.samples.name(index)}: {error}") from error
        found: NDArray[np.float32] = worker.session.run(ready.pixels[None])[0]
        return found

    if not len(split):
        raise DataError(f"the {split.name} split is empty")
    with ThreadPoolExecutor(available_cores()) as pool:
        return np.stack(list(pool.map(logits, range(len(split)))))


def column_names(manifest: Manifest) -> tuple[str, ...]:
    """What the K logits stand for: a label each; for binary the positive one."""
    names = tuple(label.name for label in manifest.labels)
    return names[1:] if manifest.task is Task.BINARY else names


def align(labels: NDArray[Any], dataset: Dataset, manifest: Manifest) -> Truth:
    """The data's labels as the bundle counts them.

    A data set may have fewer labels than the bundle, and in another order; they are
    matched by id, then by name, those of ImageNet by wnid too.

    Raises:
        DataError: a label that the bundle does not know, or another kind of data.
    """
    found = positions(dataset.label_names, manifest.labels)
    unknown = [
        name
        for name, place in zip(dataset.label_names, found, strict=True)
        if place is None
    ]
    if unknown:
        raise DataError(
            f"{dataset.name} has the label {unknown[0]!r}; {manifest.name} knows "
            f"{first_of([label.name for label in manifest.labels])}"
        )
    columns = np.array(found, np.int64)
    if dataset.multi_label != (manifest.task is Task.MULTILABEL):
        kind = (
            "several labels an image" if dataset.multi_label else "one label an image"
        )
        raise DataError(
            f"{manifest.name} is {manifest.task}; {dataset.name} has {kind}"
        )
    if manifest.task is Task.MULTILABEL:
        named = set(found)
        absent = [
            label.name for k, label in enumerate(manifest.labels) if k not in named
        ]
        if absent:
            LOGGER.warning(
                "%s does not name %s; its images are taken to have none of these",
                dataset.name,
                first_of(absent),
            )
        truth = np.zeros((len(labels), len(manifest.labels)), np.bool_)
        for column, own in zip(columns, labels.astype(bool).T, strict=True):
            truth[:, column] |= own  # two of the data's may mean one of the bundle's
        return truth
    index = columns[labels.astype(np.int64)]
    return index == 1 if manifest.task is Task.BINARY else index


def positions(names: Iterable[str], labels: Sequence[Label]) -> list[int | None]:
    """Where labels stand: by id, by name, or by the wnid that begins both ids.

    Id or name may write accents in another form of Unicode, if none is the same.

    Raises:
        DataError: one is the name of several labels, and the id of none.
    """
    spellings: tuple[Callable[[str], str], ...] = (str, nfc)  # as it is, and composed
    known: list[tuple[Callable[[str], str], dict[str, list[int]]]] = []
    for spelled, key in product(spellings, ("id", "name")):
        places: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            places.setdefault(spelled(getattr(label, key)), []).append(index)
        known.append((spelled, places))
    by_wnid: dict[str | None, int] = {}
    for index, label in enumerate(labels):
        by_wnid.setdefault(wnid_of(label.id), index)

    def position(name: str) -> int | None:
        for spelled, places in known:
            found = places.get(spelled(name), [])
            if len(found) > 1:
                ids = first_of([labels[index].id for index in found])
                raise DataError(
                    f"label {name!r} is the name of {len(found)} labels of the bundle; "
                    f"use their ids: {ids}"
                )
            if found:
                return found[0]
        wnid = wnid_of(name)
        return by_wnid.get(wnid) if wnid else None

    return [position(name) for name in names]
