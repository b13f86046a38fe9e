"""TOML → **[transfer] and [bundle]**: learning from a pretrained network, and the rules
of the bundle that comes out. Parts of `training.configs.config.Config`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from classifier.manifest import Description
from training.configs.sections import Positive, Rate, Section

Fraction = Annotated[float, Field(gt=0, lt=1)]
ProbeKind = Literal["logistic", "discriminant"]


class TransferConfig(Section):
    """How a pretrained network is taken over: a probe, then fine-tuning.

    Rates are AdamW's. The head learns at `head_rate`; the layer group before it at
    `body_rate`, and each group before that at `layer_decay` times the rate of the next
    one (Bao et al., arXiv:2106.08254). The first `frozen_groups` do not learn at all.
    """

    crops: Annotated[int, Field(ge=0, le=64)] = 2  # views for the probe, besides two
    smallest_crop: Fraction = 0.5  # of the area
    probe: ProbeKind = "logistic"
    # What cross-validation may choose from: weight decays of the logistic regression,
    # shrinkages of the covariance of the discriminant.
    probe_decays: tuple[Positive, ...] = (1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
    probe_shrinkages: tuple[Fraction, ...] = (0.1, 0.3, 0.6)
    finetune: bool = True
    head_rate: Rate = 3e-4
    body_rate: Rate = 3e-4
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75
    frozen_groups: Annotated[int, Field(ge=0)] = 3
    weight_decay: Rate = 0.05

    @property
    def probe_strengths(self) -> tuple[float, ...]:
        """Of the regularization of the kind of probe that is wanted."""
        logistic = self.probe == "logistic"
        return self.probe_decays if logistic else self.probe_shrinkages


class NegativesConfig(Section):
    """Another data set of which nothing is positive, for a binary task."""

    path: str  # below the data root
    exclude: tuple[str, ...] = ()  # file names of images to leave out


class BundleConfig(Section):
    """The rules that a bundle gets from validation images, and what its card says."""

    description: Description = ""
    license: str = "not stated"
    source: str = "not stated"
    top_k: PositiveInt = 5
    # Binary: the threshold by wanted recall, or by the costs of the two mistakes.
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    false_positive_cost: Positive = 1.0
    false_negative_cost: Positive = 1.0
    # Multi-class: abstain so that at most this part of the answers is wrong.
    risk: Fraction | None = None
    # Answer with the mean of so many views of the image, for as many times the work: it
    # and its mirror image, or both also shifted by a pixel.
    views: Literal[1, 2, 6] = 1
    int8: bool = True
    fp16: bool = False
    # fp32 weights kept in fp16 on disk, where that moves no answer
    half_storage: bool = True
    # Put mistakes.jpg into the bundle: test images that anyone can see who gets it.
    mistakes: bool = True

    @model_validator(mode="after")
    def _check_threshold(self) -> Self:
        costs = (self.false_positive_cost, self.false_negative_cost)
        if self.recall is not None and costs != (1.0, 1.0):
            raise ValueError("choose the threshold by recall or by costs, not by both")
        return self
