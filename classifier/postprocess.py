"""logits → **answer**: temperature, softmax or sigmoid, top-k, thresholds, abstain."""

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from classifier.errors import RequestError, SessionError
from classifier.manifest import Manifest, PostprocessSpec, Task

Logits = npt.NDArray[np.float32]  # [N, K]
Scores = npt.NDArray[np.float32]  # [N, K] or [K]

# Up to so many labels plain Python sorts faster than numpy sets up its calls.
FEW = 32


# Not frozen, because to freeze one takes four times as long as to make it. Nobody
# changes it, so it may be hashed all the same, and with it the answer that holds it.
@dataclass(slots=True, unsafe_hash=True)
class Prediction:
    """One label with its score."""

    label: str
    index: int  # position among the manifest's labels
    id: str
    score: float  # probability, 0..1
    threshold: float | None  # the score from which the label counts, where there is one


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The sum of the scores of one group's labels."""

    group: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of one image."""

    task: Task
    # Best first; empty when it abstained, or (multi-label) no label is good enough.
    predictions: tuple[Prediction, ...]
    decision: str | None  # binary: the label decided for
    abstained: bool
    groups: tuple[GroupScore, ...] | None  # fine-grained: best first


def probabilities(logits: Logits, spec: PostprocessSpec) -> Scores:
    """Softmax or sigmoid of logits / temperature, float32 [N, K] → float32 [N, K].

    Temperature scaling after Guo et al., arXiv:1706.04599.
    """
    temperature = np.float32(spec.temperature)
    # Only negative numbers are exponentiated: exp overflows float32 above 88. What
    # overflows here does so to -inf, whose exp is the right 0.
    with np.errstate(over="ignore"):
        if spec.activation == "softmax":
            best = logits.max(axis=-1, keepdims=True)
            exponentials = np.exp((logits - best) / temperature)
            softmax: Scores = exponentials / exponentials.sum(axis=-1, keepdims=True)
            return softmax
        decay = np.exp(-np.abs(logits) / temperature)
    sigmoid: Scores = np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay))
    return sigmoid


def top(scores: Scores, k: int) -> list[int]:
    """Indices of the k best of float32 [K], best first; ties by index."""
    if len(scores) <= FEW:
        values = scores.tolist()
        return sorted(range(len(values)), key=values.__getitem__, reverse=True)[:k]
    candidates = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= least)
    order = np.argsort(-scores[candidates], kind="stable")
    best: list[int] = candidates[order[:k]].tolist()
    return best


class Postprocessor:
    """A bundle's labels and rules, prepared once for many answers."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.spec = manifest.postprocess
        groups = sorted({label.group for label in manifest.labels if label.group})
        self._groups = tuple(groups)
        position = {group: n for n, group in enumerate(groups)}
        self._group_of = np.array(
            [position.get(label.group or "", -1) for label in manifest.labels]
        )

    @property
    def max_top_k(self) -> int:
        """The most predictions an answer can hold."""
        return self.manifest.logits

    def check(self, *, top_k: int | None, threshold: float | None) -> None:
        """Refuse parameters that this model cannot honor.

        Raises:
            RequestError: naming the value and what is allowed.
        """
        # Over HTTP they are numbers already; a caller of the library may give anything.
        if top_k is not None and not isinstance(top_k, Integral):
            raise RequestError(f"top_k is {top_k!r}; it must be a whole number")
        if top_k is not None and not 1 <= top_k <= self.max_top_k:
            raise RequestError(
                f"top_k is {top_k}; for this model 1 to {self.max_top_k} are allowed"
            )
        if threshold is not None and not isinstance(threshold, Real):
            raise RequestError(
                f"threshold is {threshold!r}; it must be a number from 0 to 1"
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise RequestError(f"threshold is {threshold}; 0 to 1 are allowed")

    def scores(self, logits: Logits) -> Scores:
        """Logits float32 [N, K] → probabilities float32 [N, K].

        Raises:
            SessionError: a logit is not a finite number.
        """
        if not np.isfinite(logits).all():
            raise SessionError("the graph gave logits that are not finite numbers")
        return probabilities(logits, self.spec)

    def answer(
        self,
        scores: Scores,
        *,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> Answer:
        """Turn one image's scores, float32 [K], into an answer.

        Args:
            scores: probabilities of one image.
            top_k: how many predictions; None takes the bundle's.
            threshold: overrides the bundle's thresholds, or its abstain threshold.

        Raises:
            RequestError: a parameter is out of range.
        """
        self.check(top_k=top_k, threshold=threshold)
        match self.manifest.task:
            case Task.BINARY:
                return self._binary(scores, threshold)
            case Task.MULTILABEL:
                return self._multilabel(scores, top_k, threshold)
            case _:
                return self._multiclass(scores, top_k, threshold)

    def _prediction(
        self, index: int, score: float, threshold: float | None = None
    ) -> Prediction:
        label = self.manifest.labels[index]
        return Prediction(label.name, index, label.id, score, threshold)

    def _binary(self, scores: Scores, threshold: float | None) -> Answer:
        if threshold is None:
            threshold = self._threshold(0)
        score = float(scores[0])
        positive = score >= threshold
        return Answer(
            task=Task.BINARY,
            predictions=(self._prediction(1, score, threshold),),
            decision=self.manifest.labels[int(positive)].name,
            abstained=False,
            groups=None,
        )

    def _multilabel(
        self, scores: Scores, top_k: int | None, threshold: float | None
    ) -> Answer:
        chosen = []
        for index in top(scores, top_k or len(scores)):
            score, own = float(scores[index]), self._threshold(index)
            needed = own if threshold is None else threshold
            # asked for a number of labels and for no threshold: thresholds only inform
            if score >= needed or (top_k is not None and threshold is None):
                chosen.append(self._prediction(index, score, needed))
        return Answer(Task.MULTILABEL, tuple(chosen), None, False, None)

    def _multiclass(
        self, scores: Scores, top_k: int | None, threshold: float | None
    ) -> Answer:
        k = top_k or self.spec.top_k
        best = top(scores, k)
        needed = self.spec.abstain_threshold if threshold is None else threshold
        abstained = needed is not None and float(scores[best[0]]) < needed
        predictions = (
            ()
            if abstained
            else tuple(self._prediction(index, float(scores[index])) for index in best)
        )
        fine = self.manifest.task is Task.FINE_GRAINED
        groups = self._group_scores(scores)[:k] if fine else None
        return Answer(self.manifest.task, predictions, None, abstained, groups)

    def _group_scores(self, scores: Scores) -> tuple[GroupScore, ...]:
        sums = np.bincount(self._group_of, weights=scores, minlength=len(self._groups))
        order = np.argsort(-sums, kind="stable").tolist()
        # sums of float32 softmax terms can exceed 1 by rounding
        return tuple(
            GroupScore(self._groups[g], min(1.0, float(sums[g]))) for g in order
        )

    def _threshold(self, index: int) -> float:
        if self.spec.thresholds is None:  # the manifest's validator excludes it
            raise AssertionError("a sigmoid task without thresholds")
        return self.spec.thresholds[index]
