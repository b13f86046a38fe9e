"""requirements + rules → **lines for the card**: what was asked for, what is granted.

A requirement that validation could not grant leaves no other trace in a bundle. Rules
are fitted on the fp32 graph: what it was granted, a smaller graph has to keep to within
a point.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import PostprocessSpec, Task
from training.configs.task_sections import REQUIREMENTS, BundleConfig
from training.data.scenes import Scenes
from training.evaluation.metrics import Booleans, Truth
from training.evaluation.selective import risk_upper
from training.rules.rules import ABSTAINED, answers, decisions

# What a smaller graph may lose of what fp32 was granted: one point, as of accuracy.
# The rules leave fp32 at the very limit, where rounding moves images to either side.
MAX_COST = MAX_RECALL_DROP = MAX_RISK_RISE = 0.01


def requirement_lines(
    logits: NDArray[np.float32],
    truth: Truth,
    task: Task,
    config: BundleConfig,
    rules: PostprocessSpec,
    *,
    scenes: Scenes | None = None,
) -> list[str]:
    """A line a requirement; the arguments are those of `fit_rules`, and its rules."""
    misplaced = config.misplaced(task)
    lines = [_left_out(name, task, config) for name in misplaced]
    if task is Task.BINARY:
        lines += _of_a_detector(decisions(logits, rules), truth, config)
    elif config.risk is not None and "risk" not in misplaced:
        lines.append(_risk(answers(logits, rules), truth, config.risk, rules, scenes))
    return lines


def unmet(  # noqa: PLR0913 - both graphs, and what was asked of the first
    fp32: NDArray[np.float32],
    smaller: NDArray[np.float32],
    truth: Truth,
    task: Task,
    config: BundleConfig,
    rules: PostprocessSpec,
    *,
    scenes: Scenes | None = None,
) -> str | None:
    """What was granted of fp32's logits and does not hold for those of a smaller graph.

    A recall below what was asked for may be one point below fp32's, or one image. The
    bound of the risk may be one point over what was asked for, or half as much again
    where that is less. Costs may grow by one point, in percent of what it would cost to
    get every image wrong.
    """
    if task is Task.BINARY:
        before, after = (decisions(logits, rules) for logits in (fp32, smaller))
        return _recall_unmet(before, after, truth, config) or _costs_unmet(
            before, after, truth, config
        )
    if config.risk is None or rules.abstain_threshold is None:
        return None
    _, bound = _of_those_given(answers(smaller, rules), truth, scenes)
    most = config.risk + min(MAX_RISK_RISE, config.risk / 2)
    if bound <= most + 1e-9:
        return None
    return (
        f"the risk is at most {bound:.4f} with a confidence of 95 % (asked: "
        f"{config.risk:g}; up to {most:g} is let through)"
    )


def _recall_unmet(
    fp32: Booleans, smaller: Booleans, truth: Booleans, config: BundleConfig
) -> str | None:
    if config.recall is None:
        return None
    before, found = (int((decided & truth).sum()) for decided in (fp32, smaller))
    positives = int(truth.sum())
    fewer = max(1, int(MAX_RECALL_DROP * positives + 1e-9))
    if found >= min(before - fewer, config.recall * positives - 1e-9):
        return None
    return (
        f"finds {found} of {positives} positives in place of {before} (asked: "
        f"{config.recall:g}; at most {fewer} fewer)"
    )


def _costs_unmet(
    fp32: Booleans, smaller: Booleans, truth: Booleans, config: BundleConfig
) -> str | None:
    alarm, miss = config.false_positive_cost, config.false_negative_cost
    if (alarm, miss) == (1, 1):
        return None
    each = np.where(truth, miss, alarm)  # what it costs to get an image wrong, [N]
    before, after = (float(each[d != truth].sum()) for d in (fp32, smaller))
    if after - before <= MAX_COST * float(each.sum()) + 1e-9:
        return None
    return (
        f"mistakes cost {after:g} in place of {before:g} (at most "
        f"{100 * MAX_COST:.0f} % of {each.sum():g} more)"
    )


def _left_out(name: str, task: Task, config: BundleConfig) -> str:
    return (
        f"Asked for: {name} = {getattr(config, name):g}. Left out: it is for "
        f"{' and '.join(REQUIREMENTS[name])} bundles, and this one is {task}"
    )


def _of_those_given(
    answered: Truth, truth: Truth, scenes: Scenes | None
) -> tuple[Booleans, float]:
    """Which of the answers that are not withheld are right, and the risk's bound."""
    given = answered != ABSTAINED
    right = (answered == truth)[given]
    return right, risk_upper(right, None if scenes is None else scenes[given])


def _risk(
    answered: Truth,
    truth: Truth,
    risk: float,
    rules: PostprocessSpec,
    scenes: Scenes | None,
) -> str:
    asked = f"Asked for: at most {risk:g} of the answers wrong."
    n, threshold = len(truth), rules.abstain_threshold
    of = counted = assumed = ""
    if scenes is not None:
        of = f" of {len(np.unique(scenes))} scenes"
        counted = ", a scene counted as one image"
        assumed = ", if large scenes are no harder than small ones"
    if threshold is None:
        return (
            f"{asked} Not reached with {n} validation images{of}{counted}: every image "
            "is answered"
        )
    right, bound = _of_those_given(answered, truth, scenes)
    return (
        f"{asked} Granted from a score of {threshold:.3f} on: of {n} validation images"
        f"{of} {len(right)} are answered, {(~right).sum()} of them wrong; the risk is "
        f"at most {bound:.4f} with a confidence of 95 %{counted}{assumed}"
    )


def _of_a_detector(
    decided: Booleans, truth: Booleans, config: BundleConfig
) -> Iterator[str]:
    if config.recall is not None:
        yield (
            f"Asked for: a recall of {config.recall:g}. Granted on validation: "
            f"{(decided & truth).sum()} of {truth.sum()} positives are found; false "
            f"positives: {(decided & ~truth).sum()} of {(~truth).sum()} negatives"
        )
    costs = config.false_positive_cost, config.false_negative_cost
    if costs != (1, 1):
        yield (
            f"Asked for: the least cost, {costs[0]:g} for a false positive and "
            f"{costs[1]:g} for a false negative. On {len(decided)} validation images: "
            f"{(decided & ~truth).sum()} false positives, "
            f"{(~decided & truth).sum()} false negatives"
        )
