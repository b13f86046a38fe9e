"""requirements + rules → **lines for the card**: what was asked for, what is granted.

A requirement that validation could not grant leaves no other trace in a bundle.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import PostprocessSpec, Task
from classifier.postprocess import probabilities
from training.configs.task_sections import REQUIREMENTS, BundleConfig
from training.data.scenes import Scenes
from training.evaluation.evaluate import Truth
from training.evaluation.metrics import Booleans, Floats
from training.evaluation.selective import risk_upper
from training.rules.rules import decisions


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
    decided = decisions(logits, rules)
    misplaced = config.misplaced(task)
    lines = [_left_out(name, task, config) for name in misplaced]
    if task is Task.BINARY:
        lines += _of_a_detector(decided, truth, config)
    elif config.risk is not None and "risk" not in misplaced:
        best = probabilities(logits, rules).max(axis=1)  # float32 [N]
        lines.append(_risk(best, decided == truth, config.risk, rules, scenes))
    return lines


def _left_out(name: str, task: Task, config: BundleConfig) -> str:
    return (
        f"Asked for: {name} = {getattr(config, name):g}. Left out: it is for "
        f"{' and '.join(REQUIREMENTS[name])} bundles, and this one is {task}"
    )


def _risk(
    score: Floats,
    correct: Booleans,
    risk: float,
    rules: PostprocessSpec,
    scenes: Scenes | None,
) -> str:
    asked = f"Asked for: at most {risk:g} of the answers wrong."
    n, threshold = len(score), rules.abstain_threshold
    of = counted = ""
    if scenes is not None:
        of = f" of {len(np.unique(scenes))} scenes"
        counted = ", a scene counted as one image"
    if threshold is None:
        return (
            f"{asked} Not reached with {n} validation images{of}{counted}: every image "
            "is answered"
        )
    answers = score >= np.float64(threshold)
    wrong = int((~correct[answers]).sum())
    bound = risk_upper(correct[answers], None if scenes is None else scenes[answers])
    return (
        f"{asked} Granted from a score of {threshold:.3f} on: of {n} validation images"
        f"{of} {answers.sum()} are answered, {wrong} of them wrong; the risk is at "
        f"most {bound:.4f} with a confidence of 95 %{counted}"
    )


def _of_a_detector(
    decided: Booleans, truth: Booleans, config: BundleConfig
) -> Iterator[str]:
    if config.recall is not None:
        yield (
            f"Asked for: a recall of {config.recall:g}. Granted on validation: "
            f"{(decided & truth).sum()} of {truth.sum()} positives are found"
        )
    costs = config.false_positive_cost, config.false_negative_cost
    if costs != (1, 1):
        yield (
            f"Asked for: the least cost, {costs[0]:g} for a false positive and "
            f"{costs[1]:g} for a false negative. On {len(decided)} validation images: "
            f"{(decided & ~truth).sum()} false positives, "
            f"{(~decided & truth).sum()} false negatives"
        )
