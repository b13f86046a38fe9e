"""TOML → **sections**: transfer from a pretrained network, negatives, and the rules of
the bundle that comes out. Parts of `training.configs.config.Config`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from classifier.manifest import Task
from classifier.texts import Description, Prose
from training.configs.sections import Positive, Rate, Section

OpenFraction = Annotated[float, Field(gt=0, lt=1)]
ProbeKind = Literal["logistic", "discriminant"]

# Keys of [bundle] that only the rules of some tasks can grant.
REQUIREMENTS = {
    "recall": (Task.BINARY,),
    "false_positive_cost": (Task.BINARY,),
    "false_negative_cost": (Task.BINARY,),
    "risk": (Task.MULTICLASS, Task.FINE_GRAINED),
}


class TransferConfig(Section):
    """How a pretrained network is taken over: a probe, then fine-tuning by AdamW with
    rates that fall towards the first layers (Bao et al., arXiv:2106.08254).
    """

    crops: Annotated[int, Field(ge=0, le=64)] = 2
    """Random crops of each image for the probe, besides it and its mirror image."""
    smallest_crop: OpenFraction = 0.5
    """Smallest part of the area of a crop."""
    probe: ProbeKind = "logistic"
    """A logistic regression, or a linear discriminant, which is for one label an
    image."""
    probe_decays: Annotated[tuple[Positive, ...], Field(min_length=1)] = (
        1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0,
    )  # fmt: skip
    """Weight decays of the logistic regression that cross-validation chooses from."""
    probe_shrinkages: Annotated[tuple[OpenFraction, ...], Field(min_length=1)] = (
        0.1, 0.3, 0.6,
    )  # fmt: skip
    """Shrinkages of the discriminant's covariance that it chooses from."""
    finetune: bool = True
    """Let the layers learn after the probe; needs `train.epochs` or `train.minutes`."""
    head_rate: Positive = 3e-4
    """Learning rate of the head."""
    body_rate: Positive = 3e-4
    """Learning rate of the layer group before the head."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Times this is the rate of each group before that."""
    frozen_groups: Annotated[int, Field(ge=0)] = 3
    """The first groups, which do not learn at all."""
    weight_decay: Rate = 0.05
    """Of fine-tuning, decoupled from the gradient."""

    @property
    def probe_strengths(self) -> tuple[float, ...]:
        """Of the regularization of the kind of probe that is wanted."""
        logistic = self.probe == "logistic"
        return self.probe_decays if logistic else self.probe_shrinkages


class NegativesConfig(Section):
    """Another data set of which nothing is positive, for a binary task."""

    path: str
    """Below the folder of the data sets, `--data`."""
    exclude: tuple[str, ...] = ()
    """File names of images to leave out."""


class BundleConfig(Section):
    """The rules that a bundle gets from validation images, and what its card says."""

    description: Description = ""
    """What the bundle is for, on its card."""
    license: Prose = "not stated"
    """Of weights and data, on its card."""
    source: Prose = "not stated"
    """Of the data, on its card."""
    top_k: PositiveInt = 5
    """Labels in an answer."""
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """Binary: the highest threshold that still finds this part of the positives."""
    false_positive_cost: Positive = 1.0
    """Binary, in place of `recall`: the cheapest threshold."""
    false_negative_cost: Positive = 1.0
    """As `false_positive_cost`."""
    risk: OpenFraction | None = None
    """Multi-class: abstain, so that at most this part of the answers is wrong."""
    views: Literal[1, 2, 6] = 1
    """Answer with the mean of so many views of the image, for as many times the work:
    it; its mirror image; both also shifted by a pixel."""
    int8: bool = True
    """Try an int8 graph."""
    fp16: bool = False
    """Add an fp16 graph, for GPUs."""
    half_storage: bool = True
    """Keep fp32 weights in fp16 on disk, where that moves no answer."""
    mistakes: bool = True
    """Put `mistakes.jpg`, a sheet of test images, into the bundle."""

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        costs = (self.false_positive_cost, self.false_negative_cost)
        if self.recall is not None and costs != (1.0, 1.0):
            raise ValueError("choose the threshold by recall or by costs, not by both")
        return self

    def misplaced(self, task: Task) -> list[str]:
        """The wishes that no rule of this task can grant."""
        return [
            name
            for name in self.changed(REQUIREMENTS)
            if task not in REQUIREMENTS[name]
        ]
