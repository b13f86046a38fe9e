"""dataset → **splits**: train, validation, calibration, and a test split opened once.

What the publisher does not provide is cut from train, stratified and seeded, so that
the same seed gives the same splits on every machine. Calibration images give the int8
quantization ranges; they are drawn from train without being taken out of it, since
ranges need typical images and not unseen ones. The temperature is fitted on validation.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.configs.sections import DEFAULT_VALIDATION
from training.data.dataset import Dataset, Split, occurring
from training.data.relabel import as_binary
from training.data.stratify import hold_out
from training.errors import DataError

CALIBRATION_IMAGES = 300  # beyond about 128 the ranges hardly move

HeldOut = float | int  # under 1: a part of train; else a number of images


class Splits:
    """Four splits with four names. `test` answers once: it is for the last figure."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        train: Split,
        validation: Split,
        calibration: Split,
        test: Split | None,
    ) -> None:
        self.dataset = dataset
        self.train = train
        self.validation = validation
        self.calibration = calibration
        self._test = test
        self._opened = False

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; asking does not open it."""
        return self._test is not None

    @property
    def sizes(self) -> dict[str, int]:
        """How many images train, validation and test have, which opens none of them."""
        test = 0 if self._test is None else len(self._test)
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            "test": test,
        }

    @property
    def unwatched(self) -> tuple[str, ...]:
        """Names of the labels of which validation has no image, where it has any."""
        labels, names = self.validation.labels, self.dataset.label_names
        if not len(labels):
            return ()
        unseen = np.flatnonzero(~occurring(labels, len(names)))
        return tuple(names[k] for k in unseen)

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Names of the labels of which train has images, and calibration has none."""
        names = self.dataset.label_names
        seen, learned = (
            occurring(split.labels, len(names))
            for split in (self.calibration, self.train)
        )
        return tuple(names[k] for k in np.flatnonzero(learned & ~seen))

    @property
    def test(self) -> Split:
        """The test split.

        Raises:
            DataError: there is none, or it was opened before: a figure that is looked
                at twice has been tuned on.
        """
        if self._test is None:
            raise DataError(
                f"{self.dataset.name} has no test split; provide one, or cut it from "
                "train with `test = 0.1` in [data]"
            )
        if self._opened:
            raise DataError(f"the test split of {self.dataset.name} was opened before")
        self._opened = True
        return self._test

    def asked(self, positive: tuple[str, ...]) -> "Splits":
        """The same splits with yes and no as labels.

        Raises:
            DataError: a positive label is unknown or named twice, or nothing would be
            negative.
        """
        return self.relabelled(lambda dataset: as_binary(dataset, positive))

    def relabelled(self, relabel: Callable[[Dataset], Dataset]) -> "Splits":
        """The same splits under other labels: no image changes its side."""
        parts = {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
        }
        if self._test is not None:
            parts["test"] = self._test
        dataset = relabel(replace(self.dataset, parts=parts))
        test = dataset.parts.get("test")
        parts = {name: dataset.parts[name] for name in parts if name != "test"}
        return Splits(dataset, test=test, **parts)


def cut(
    dataset: Dataset,
    *,
    validation: HeldOut = DEFAULT_VALIDATION,
    test: HeldOut = 0.0,
    seed: int = 0,
) -> Splits:
    """Cut what is missing from train: first test, then validation of what is left.

    So of 100 images 0.2 and 0.2 are 20 for test and 16 for validation. It stays so:
    other shares would make other splits of the runs and bundles that there are.

    A split that the publisher provides is kept as it is and its share ignored. Where
    train knows its scenes, none of them is parted.

    Raises:
        DataError: a share leaves nothing to train on, or nothing of a label, or holds
            out nothing.
    """
    train, names = dataset.train, dataset.label_names
    parts = dict(dataset.parts)
    if "test" not in parts and test:
        train, parts["test"] = _cut_off(train, names, "test", test, seed)
    if "validation" not in parts:
        train, parts["validation"] = _cut_off(
            train, names, "validation", validation, seed + 1
        )
    return Splits(
        dataset,
        train=train,
        validation=parts["validation"],
        calibration=parts.get("calibration") or _sample(train, seed + 2),
        test=parts.get("test"),
    )


def _cut_off(
    train: Split, label_names: tuple[str, ...], name: str, share: HeldOut, seed: int
) -> tuple[Split, Split]:
    """What is left of train, and the part cut off."""
    count = round(share * len(train)) if share < 1 else int(min(len(train), share))
    if not 0 <= count < len(train):
        raise DataError(
            f"{name} = {share} of {len(train)} training images leaves none to train on"
        )
    inside = hold_out(train.labels, count=count, seed=seed, scenes=train.scenes)
    if share and not len(inside):  # unsaid, nothing would be watched or measured
        raise DataError(
            f"{name} = {share} holds out none of the {len(train)} training images"
            f"{_in_scenes(train)}; give a larger share, or 0 to do without"
        )
    left = train.select(np.setdiff1d(np.arange(len(train)), inside))
    lost = occurring(train.labels, len(label_names))
    lost &= ~occurring(left.labels, len(label_names))
    if lost.any():  # it would be trained as a label that no image has
        raise DataError(
            f"{name} = {share} leaves no image of label {label_names[lost.argmax()]!r} "
            "to train on; give a smaller share"
        )
    return left, train.select(inside, name)


def _in_scenes(train: Split) -> str:
    if train.scenes is None:
        return ""
    return (
        f", which are of {len(np.unique(train.scenes))} scene(s): none is parted, and "
        "train keeps one of each label"
    )


def _sample(train: Split, seed: int) -> Split:
    """Calibration images out of train, which keeps them."""
    count = min(CALIBRATION_IMAGES, len(train))
    chosen = np.random.default_rng(seed).permutation(len(train))[:count]
    return train.select(np.sort(chosen), "calibration")
