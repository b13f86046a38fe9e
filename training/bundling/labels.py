"""labels of the data → **labels of a bundle**: ids as they are, names for people."""

import re

from classifier.manifest import Label, Task
from training.data.dataset import Dataset

# A hyphen or underscore that joins words: not that of `-1`, `20-29` or `covid-19`.
JOINT = re.compile(r"(?<=[^\W\d_])[-_](?=[^\W\d_])")


def bundle_labels(dataset: Dataset, task: Task) -> tuple[Label, ...]:
    """Ids as in the data; names for people, as short as tells each label from the rest.

    A blank takes the place of a hyphen or underscore between two letters, and of no
    other: `sea-lion` is a `sea lion`, and `-1` is no 1.

    Only fine-grained labels have groups: `sea-lion` and `sea-otter` of another task
    share a word and nothing more.
    """
    ids = dataset.label_names
    groups = dataset.groups if task is Task.FINE_GRAINED else (None,) * len(ids)
    spellings = (
        [readable(label, group) for label, group in zip(ids, groups, strict=True)],
        [readable(label, None) for label in ids],  # `apple-red` beside `pear-red`
    )
    apart = (names for names in spellings if len(set(names)) == len(ids))
    names = next(apart, list(ids))  # `sea-lion` beside `sea_lion`
    return tuple(
        Label(id=label, name=name, group=group)
        for label, name, group in zip(ids, names, groups, strict=True)
    )


def readable(label: str, group: str | None) -> str:
    """`apple-granny-smith` in the group `apple` → `granny smith`."""
    short = label.removeprefix(f"{group}-") if group else label
    return JOINT.sub(" ", short) or label  # of `apple-`
