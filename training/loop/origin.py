"""splits → **origin**: which data a run was trained on, as its checkpoints keep it.

Splits are cut anew at every start and export. One photo more or less in the folder
deals all of them out differently: what was learned comes into validation and test, and
thresholds and figures flatter without a word.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from training.data import Splits
from training.errors import CheckpointError

LOGGER = logging.getLogger(__name__)

REMEDY = "put the data back as it was, or train anew in another folder"


@dataclass(frozen=True)
class Origin:
    """Label names in their order, and the fingerprints of train and validation.

    Test is no part of it: an image in neither of them has not been learned, and a test
    split may be collected after the training.
    """

    labels: tuple[str, ...]
    fingerprints: Mapping[str, str]  # by the name of the split

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"labels": list(self.labels), "fingerprints": dict(self.fingerprints)}

    def check(self, saved: Mapping[str, Any], where: Path) -> None:
        """Compare with the checkpoint that was read from `where`.

        Checkpoints of before fingerprints were kept pass, with a line in the log.

        Raises:
            CheckpointError: it is of other data; the message names what differs.
        """
        trained = saved.get("labels", self.labels)
        for index, (was, now) in enumerate(zip_longest(trained, self.labels)):
            if was != now:
                raise CheckpointError(
                    f"{where} was trained with other labels: number {index} was "
                    f"{was!r} and is {now!r} in the data; {REMEDY}"
                )
        known = saved.get("fingerprints")
        if known is None:
            LOGGER.warning(
                "%s does not say which images it was trained on; that they are the "
                "same is not checked",
                where,
            )
            return
        ours = self.fingerprints
        differing = [name for name in ours if known.get(name) != ours[name]]
        if differing:
            raise CheckpointError(
                f"{where} was trained on other images: those of "
                f"{' and '.join(differing)} are not the same; {REMEDY}"
            )


def origin_of(splits: Splits) -> Origin:
    """Of splits as they were cut."""
    parts = (splits.train, splits.validation)
    fingerprints = {part.name: part.fingerprint() for part in parts}
    return Origin(splits.dataset.label_names, fingerprints)
