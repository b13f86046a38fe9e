"""config + data → **what does not suit**, refused before the first step."""

import logging
from collections import Counter
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from classifier.manifest import MAX_LABELS, Task
from classifier.texts import LabelText
from training.configs.config import Config
from training.data import Dataset, Splits
from training.data.dataset import first_of
from training.data.tree import exists
from training.errors import ConfigError, DataError

LOGGER = logging.getLogger(__name__)


def check_there(config: Config, root: Path) -> None:
    """Refuse paths, as seen from the folder of the data sets, where nothing is.

    Raises:
        DataError: with the option that names another folder.
    """
    for path in (config.data.path, *(more.path for more in config.negatives)):
        if not exists(root / path):
            raise DataError(
                f"there is no {path} in {root}; name the folder that holds it with "
                "--data or LINNAEUS_DATA. Where the data sets of the shipped configs "
                "come from is in docs/data.md, what yours may look like in "
                "docs/training.md"
            )


def check_task(config: Config, dataset: Dataset) -> None:
    """Refuse data of another task.

    Raises:
        ConfigError: saying what the data lacks or has.
    """
    task, names = config.task, dataset.label_names
    if dataset.multi_label != (task is Task.MULTILABEL):
        kind = "several labels" if dataset.multi_label else "one label"
        raise ConfigError(f"task is {task}; images of {dataset.name} have {kind}")
    if task is Task.BINARY and not config.data.positive:
        # The alphabet would decide what recall is promised of: `healthy`, not `cancer`.
        raise ConfigError(
            f"task is binary, and nothing says which of the {len(names)} labels of "
            f"{dataset.name} mean yes: {', '.join(names[:20])}; name them with "
            f'data.positive, such as positive = ["{names[0]}"]'
        )
    if task is Task.FINE_GRAINED and None in dataset.groups:
        raise ConfigError(
            f"task is fine-grained and {dataset.name} has no groups: name its labels "
            "GROUP-NAME, such as apple-fuji"
        )


def check_labels(dataset: Dataset) -> None:
    """Refuse labels that no bundle can hold.

    Raises:
        DataError: naming the first of them.
    """
    names = dataset.label_names
    if not 2 <= len(names) <= MAX_LABELS:  # noqa: PLR2004 - one would answer nothing
        raise DataError(
            f"{dataset.name} has {len(names)} label(s); a bundle has 2 to {MAX_LABELS}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{dataset.name} has the label {twice[0]!r} more than once")
    for name in names:
        try:
            TypeAdapter(LabelText).validate_python(name)
        except ValidationError as error:
            raise DataError(
                f"{dataset.name} has the label {name!r}, which no bundle can "
                f"hold: {error.errors()[0]['msg']}"
            ) from error


def check_watched(task: Task, splits: Splits) -> None:
    """Refuse a validation by which every network has the same average precision.

    Raises:
        DataError: it has no image of yes, or none of no; or of several labels none.
    """
    missing = splits.unwatched
    names = first_of(missing)
    none_at_all = len(missing) == len(splits.dataset.label_names)
    if (task is Task.BINARY and missing) or (task is Task.MULTILABEL and none_at_all):
        raise DataError(
            f"validation has no image of {names}, so that its average precision would "
            "tell nothing; give a larger share, or more images of it"
        )
    if missing:
        them = "it" if len(missing) == 1 else "them"
        LOGGER.info("validation has no image of %s: nothing watches %s", names, them)


def check_chosen(config: Config, splits: Splits) -> None:
    """Refuse to choose by validation images where there are none.

    Raises:
        ConfigError: a run would go on to its end, and keep its last weights, unsaid.
    """
    if len(splits.validation):
        return
    chosen_by = {
        "[transfer]": config.transfer is not None,
        "train.patience": config.train.patience is not None,
        'train.keep = "best"': config.train.keep == "best",
    }
    asked = [name for name, wanted in chosen_by.items() if wanted]
    if asked:
        raise ConfigError(
            f"{' and '.join(asked)}: there are no validation images to choose by; "
            "data.validation must be a share of train or a number above 0"
        )
