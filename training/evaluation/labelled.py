"""path + bundle → **one split** of labelled images, as that bundle's task sees it."""

import logging
from dataclasses import replace
from pathlib import Path

from classifier.manifest import Manifest, Task
from training.data import Dataset, load_dataset
from training.data.dataset import Split, first_of
from training.data.negatives import join
from training.data.relabel import as_binary, as_written
from training.errors import DataError
from training.evaluation.evaluate import positions

WHOLE = "all"
LOGGER = logging.getLogger(__name__)


def open_labelled(
    path: Path, manifest: Manifest, *, split: str, positive: tuple[str, ...] = ()
) -> tuple[Dataset, Split]:
    """The data set as the bundle's task sees it, and the split asked for.

    "all" joins what there is. A folder without splits is all "train" to a trainer; to
    an evaluation that asks for "test" it is what there is to test on, and called "all".

    Raises:
        DataError: no such data, split, or labels that fit.
    """
    multi_label = several_labels(manifest.task)
    dataset = load_dataset(path, multi_label=multi_label, trainable=False)
    dataset = as_question(dataset, manifest, positive)
    if split == WHOLE or (split == "test" and list(dataset.parts) == ["train"]):
        parts = list(dataset.parts.values())
        if len(parts) == 1:
            return dataset, replace(parts[0], name=WHOLE)
        return dataset, join(WHOLE, parts)
    if split not in dataset.parts:
        raise DataError(
            f"{path} has no {split} split; it has {', '.join(dataset.parts)}, or "
            f"{WHOLE} for everything"
        )
    return dataset, dataset.parts[split]


def several_labels(task: Task) -> bool | None:
    """Whether an image may have several labels, or none.

    None if the data may decide: a bundle of yes and no asks for one of them alone.
    """
    return None if task is Task.BINARY else task is Task.MULTILABEL


def as_question(
    dataset: Dataset, manifest: Manifest, positive: tuple[str, ...]
) -> Dataset:
    """For a binary bundle, a data set of any labels as yes and no, by its two names.

    For another task it stays as it is. What is not said to mean yes means no. The log
    names it: a folder `dogs` beside `dog` would otherwise make false alarms of right
    answers, without a word. So would a label that was forgotten, where an image may
    have several.

    Raises:
        DataError: it cannot be known which labels mean yes, or none does.
    """
    if manifest.task is not Task.BINARY:
        if positive:
            raise DataError(
                f"{', '.join(map(repr, positive))} cannot mean yes (--positive): "
                f"{manifest.name} is {manifest.task}, and only binary bundles say yes"
            )
        return dataset
    no, yes = (label.id for label in manifest.labels)
    if not positive:
        unknown = None in positions(dataset.label_names, manifest.labels)
        if not (unknown or dataset.multi_label):
            return dataset
        if as_written((yes,), dataset.label_names)[0] not in dataset.label_names:
            raise DataError(
                f"the labels of {dataset.name} are {list(dataset.label_names)}, not "
                f"those of {manifest.name}, {no!r} and {yes!r}; say which of them mean "
                "yes (--positive)"
            )
        positive = (yes,)
    positive = as_written(positive, dataset.label_names)
    asked = as_binary(dataset, positive)
    others = [name for name in dataset.label_names if name not in positive]
    if dataset.multi_label:
        bare = sum(int((~p.labels.any(1)).sum()) for p in dataset.parts.values())
        others += [f"{bare} image(s) without a label"] if bare else []
    LOGGER.info("of %s, taken for %s: %s", dataset.name, no, first_of(others))
    return replace(asked, label_names=(no, yes))
