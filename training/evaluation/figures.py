"""logits + truth → **figures**: every metric that a task knows, and its interval.

Axes: N images, K logits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from classifier.manifest import Manifest, Task
from classifier.postprocess import probabilities
from training.data.scenes import Scenes
from training.evaluation import metrics
from training.evaluation.answers import (
    Answers,
    multiclass_metrics,
    multiclass_trials,
    per_class,
    softmax_losses,
)
from training.evaluation.intervals import (
    Intervals,
    bootstrap,
    exact,
    of_yes_and_no,
    without_the_unseen,
)
from training.evaluation.metrics import (
    Booleans,
    ClassRow,
    Floats,
    Integers,
    Metrics,
    Trials,
    Truth,
)
from training.evaluation.reliability import (
    sigmoid_losses,
    sigmoid_reliability,
    softmax_reliability,
)


def measure(
    manifest: Manifest,
    logits: Floats,
    truth: Truth,
    *,
    scenes: Scenes | None = None,
) -> tuple[Metrics, Intervals, list[ClassRow]]:
    """Metrics of logits [N, K], their intervals, and a row a class."""
    figures = figures_of(manifest, logits, truth)
    found = figures.metrics(np.arange(len(truth)))
    intervals = without_the_unseen(
        bootstrap(figures.metrics, len(truth), scenes=scenes), figures.mistakes, scenes
    )
    if scenes is None:  # images of one scene are no independent trials
        intervals |= exact(figures.trials) | figures.closed
    return found, intervals, figures.rows


@dataclass(frozen=True)
class Figures:
    """What is known of a task's answers."""

    rows: list[ClassRow]
    trials: Trials  # of the metrics that are plain shares
    mistakes: Booleans  # whose best label, or side of 0.5 at some label, is wrong [N]
    metrics: Callable[[Integers], Metrics]  # of the images at some positions, int [N]
    # Of other metrics of independent images, those in closed form.
    closed: Intervals = field(default_factory=dict)


def figures_of(manifest: Manifest, logits: Floats, truth: Truth) -> Figures:
    """The figures that a task asks for."""
    if manifest.task.activation == "softmax":
        return _softmax_figures(manifest, logits, truth)
    rules = manifest.postprocess
    scores = probabilities(logits, rules)
    nll = sigmoid_losses(logits, truth.reshape(logits.shape), rules.temperature)
    thresholds = rules.thresholds or (0.5,) * scores.shape[1]
    decided = scores >= np.asarray(thresholds)  # bool [N, K]
    # Not by the thresholds: what a score costs does not depend on them.
    mistakes = ((scores > 0.5) != truth.reshape(scores.shape)).any(axis=1)  # noqa: PLR2004
    if manifest.task is Task.BINARY:

        def binary(index: Integers) -> Metrics:
            s, t = scores[index], truth[index]
            values = metrics.binary_metrics(s[:, 0], t, threshold=thresholds[0])
            return values | sigmoid_reliability(s, t, nll=nll[index])

        rows = metrics.per_label(scores, truth[:, None], thresholds)
        trials = metrics.binary_trials(decided[:, 0], truth)
        closed = of_yes_and_no(scores[:, 0], decided[:, 0], truth)
        return Figures(rows, trials, mistakes, binary, closed)

    ranked = metrics.rankings(scores, truth)

    def multilabel(index: Integers) -> Metrics:
        s, t = scores[index], truth[index]
        values = metrics.multilabel_metrics(s, t, thresholds=thresholds)
        values |= metrics.mean_average_precision(ranked, index)
        return values | sigmoid_reliability(s, t, nll=nll[index])

    rows = metrics.per_label(scores, truth, thresholds)
    trials = metrics.multilabel_trials(decided, truth)
    return Figures(rows, trials, mistakes, multilabel)


def _softmax_figures(manifest: Manifest, logits: Floats, truth: Truth) -> Figures:
    rules = manifest.postprocess
    limit = rules.abstain_threshold
    nll = softmax_losses(logits, truth, rules.temperature)
    scores = probabilities(logits, rules)
    answers = Answers.of(scores, truth, nll=nll, groups=_groups(manifest))

    def multiclass(index: Integers) -> Metrics:
        drawn = answers.select(index)
        values = multiclass_metrics(drawn, abstain_threshold=limit)
        return values | softmax_reliability(drawn)

    trials = multiclass_trials(answers, abstain_threshold=limit)
    return Figures(per_class(answers), trials, ~answers.correct, multiclass)


def _groups(manifest: Manifest) -> list[str] | None:
    if manifest.task is not Task.FINE_GRAINED:
        return None
    return [label.group or "" for label in manifest.labels]
