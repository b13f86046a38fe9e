"""validation logits → **postprocess spec**: temperature, thresholds, abstention.

Everything that turns logits into decisions is fitted here, in one place, on validation
images and on the graph that will be served.
"""

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import PostprocessSpec, Task
from classifier.postprocess import probabilities
from training.configs.task_sections import BundleConfig
from training.data.scenes import Scenes
from training.evaluation.metrics import Truth
from training.evaluation.selective import abstain_rule
from training.rules.temperature import fit_temperature
from training.rules.thresholds import by_cost, by_recall, out_of_fold_f1, per_label_f1

Logits = NDArray[np.float32]  # [N, K]

ABSTAINED = -1  # in place of a class index


def fit_rules(
    logits: Logits,
    truth: Truth,
    task: Task,
    config: BundleConfig,
    *,
    labels: int,
    scenes: Scenes | None = None,
) -> PostprocessSpec:
    """The rules of a bundle.

    Args:
        logits: of validation images, [N, K].
        truth: class index [N], or bool [N] (binary) or [N, K] (multi-label).
        task: decides activation and kind of threshold.
        config: what the owner wants: recall, costs, risk.
        labels: how many labels the bundle names (2 for binary, else K).
        scenes: of the images [N], where they are known: images of one are no
            independent evidence.
    """
    sigmoid = task.activation == "sigmoid"
    answers = truth.reshape(logits.shape) if sigmoid else truth
    spec = PostprocessSpec(
        activation=task.activation,
        temperature=fit_temperature(logits, answers),
        thresholds=(0.5,) * logits.shape[1] if sigmoid else None,
        top_k=min(config.top_k, labels),
        abstain_threshold=None,
    )
    scores = probabilities(logits, spec)  # float32 [N, K]
    if task is Task.BINARY:
        return spec.model_copy(
            update={"thresholds": (binary_threshold(scores[:, 0], truth, config),)}
        )
    if task is Task.MULTILABEL:
        return spec.model_copy(
            update={"thresholds": tuple(per_label_f1(scores, truth, scenes=scenes))}
        )
    if config.risk is None:
        return spec
    correct = scores.argmax(axis=1) == truth
    rule = abstain_rule(scores.max(axis=1), correct, risk=config.risk, scenes=scenes)
    return spec.model_copy(
        update={"abstain_threshold": None if rule is None else rule.threshold}
    )


def binary_threshold(
    scores: NDArray[np.float32], truth: Truth, config: BundleConfig
) -> float:
    """By wanted recall where one is given, else by the costs of the two mistakes."""
    if config.recall is not None:
        return by_recall(scores, truth, recall=config.recall)
    return by_cost(
        scores,
        truth,
        false_positive=config.false_positive_cost,
        false_negative=config.false_negative_cost,
    )


def answers(logits: Logits, spec: PostprocessSpec) -> Truth:
    """As `decisions`, with `ABSTAINED` where an image is given no label."""
    decided = decisions(logits, spec)
    if spec.abstain_threshold is None:
        return decided
    best = probabilities(logits, spec).max(axis=1)  # float32 [N]
    # as the service compares: a plain float would be rounded to float32
    given: Truth = np.where(
        best >= np.float64(spec.abstain_threshold), decided, ABSTAINED
    )
    return given


def decisions(logits: Logits, spec: PostprocessSpec) -> Truth:
    """What the rules make of logits: class index [N], or bool [N] or [N, K]."""
    scores = probabilities(logits, spec)
    if spec.thresholds is None:
        best: Truth = scores.argmax(axis=1)
        return best
    decided = scores >= np.asarray(spec.thresholds)
    return decided[:, 0] if decided.shape[1] == 1 else decided


def out_of_fold_f1_lines(
    logits: Logits, truth: Truth, spec: PostprocessSpec, *, scenes: Scenes | None = None
) -> list[str]:
    """A line on what per-label thresholds promise, where that can be known."""
    if spec.thresholds is None or len(spec.thresholds) == 1:
        return []
    value = out_of_fold_f1(probabilities(logits, spec), truth, scenes=scenes)
    if value is None:
        return []
    it = "it" if scenes is None else "its scene"
    return [
        f"Macro F1 on validation, each image decided by thresholds that have not seen "
        f"{it}: {value:.4f}"
    ]
