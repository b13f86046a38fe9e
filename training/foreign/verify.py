"""original against wrapped, on the same photos → **proof**, or a refusal.

The original runs on floats that are normalized here, in NumPy, one image at a time; the
wrapped graph on pixels, all images in one batch. They must agree on every score, which
proves layout, normalization, activation and the freedom of the batch together.
"""

import numpy as np
from numpy.typing import NDArray

from classifier.manifest import Task
from training.foreign.facts import Facts
from training.graphs.graph import GraphError, open_session, run

Floats = NDArray[np.float64]

BOUND = "the graph is bound to its batch; export it with a dynamic one"

# Share of the largest score: float32 sums in another order, float16 has 11 bits.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "uint8": 1e-3}


def verify(
    original: bytes, wrapped: bytes, facts: Facts, pixels: NDArray[np.uint8]
) -> float:
    """The largest error, as a share of the largest score, over `pixels` [n, H, W, C].

    Raises:
        GraphError: the two disagree, or what was said of the scores is not true.
    """
    # Beside copies of itself an image is what it is alone, whatever mixes a batch.
    if len(pixels) == 1:
        pixels = np.concatenate([pixels, 255 - pixels])
    scores = run_original(original, facts, pixels)
    check_scores(scores, facts)
    # More images than were given, and in another order: the batch must be free.
    batch = np.concatenate([pixels, pixels[::-1]])
    try:
        logits = run(wrapped, [batch]).astype(np.float64)
    except GraphError as error:
        raise GraphError(f"{BOUND}: {error}") from error
    if logits.shape != (len(batch), facts.logits):
        found = f"{len(batch)} images give logits {list(logits.shape)}"
        raise GraphError(f"{BOUND}: {found}")
    off = compare(np.concatenate([scores, scores[::-1]]), logits, facts)
    if not off <= TOLERANCE[facts.dtype]:
        raise GraphError(
            f"the wrapped graph is off by {off:.2g} of the original's largest score "
            f"(at most {TOLERANCE[facts.dtype]}): it is bound to its batch or does "
            "something that wrapping does not foresee"
        )
    return off


def run_original(original: bytes, facts: Facts, pixels: NDArray[np.uint8]) -> Floats:
    """Images, uint8 [n, H, W, C], one by one through the graph as it came: [n, K]."""
    session = open_session(original)
    declared = session.get_inputs()[0].shape[0]
    copies = declared if isinstance(declared, int) else 1
    scores = np.empty((len(pixels), facts.classes))
    for row, image in zip(scores, pixels, strict=True):
        batch = np.stack([normalize(image, facts)] * copies)
        try:
            answer = session.run([facts.output], {facts.input: batch})[0]
        except Exception as error:  # a border: ONNX Runtime's classes share no base
            raise GraphError(f"the original graph does not run: {error}") from error
        if answer.size != copies * facts.classes:
            raise GraphError(
                f"the original gives {answer.size} scores for {copies} images; "
                f"{copies * facts.classes} were expected"
            )
        row[:] = answer.reshape(copies, -1)[0]
    return scores


def normalize(pixels: NDArray[np.uint8], facts: Facts) -> NDArray[np.generic]:
    """uint8 [H, W, C] as the foreign network wants it, without a batch dimension."""
    image: NDArray[np.generic] = pixels[..., ::-1] if facts.reverse else pixels
    if facts.normalization is not None:
        white, mean, std = facts.normalization
        image = (image.astype(np.float64) * white / 255 - mean) / std
        image = image.astype(facts.dtype)
    return image.transpose(2, 0, 1) if facts.layout == "NCHW" else image


def check_scores(scores: Floats, facts: Facts) -> None:
    """Raise GraphError where the scores cannot be what they are said to be."""
    if not np.isfinite(scores).all():
        raise GraphError("the original gives scores that are not finite")
    within = bool((scores >= 0).all() and (scores <= 1).all())
    summed = facts.classes > 1 and np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    if facts.scores == "logits" and within and summed:
        raise GraphError(
            "the scores were said to be logits, but all lie in 0..1 and sum to 1: "
            "they are probabilities"
        )
    # a linear layer may end a multi-label network below a sigmoid that nobody knows
    doubtful = not facts.shown or facts.task is Task.MULTILABEL
    if facts.scores == "logits" and within and doubtful:
        raise GraphError(
            "the scores were taken for logits, but all lie in 0..1, as after a "
            "sigmoid: if they are logits, photos with other labels show it, else say "
            "that they are probabilities"
        )
    if facts.scores != "logits" and not within:
        raise GraphError(
            f"the scores were said to be probabilities, but go from {scores.min():.3g} "
            f"to {scores.max():.3g}"
        )
    if facts.scores == "softmax" and not summed:
        raise GraphError("the probabilities of an image do not sum to 1")


def compare(scores: Floats, logits: Floats, facts: Facts) -> float:
    """Largest difference as a share of the largest score.

    Logits are compared with logits, probabilities with the bundle's probabilities.
    """
    two_sided = facts.task is Task.BINARY and facts.classes == 2  # noqa: PLR2004
    if facts.scores == "logits":
        wanted = scores[:, 1:] - scores[:, :1] if two_sided else scores
    else:
        wanted = scores[:, 1:] if two_sided else scores
        sigmoid = facts.scores == "sigmoid" or two_sided
        logits = _sigmoid(logits) if sigmoid else _softmax(logits)
    largest = max(float(np.abs(wanted).max()), 1e-6)
    return float(np.abs(wanted - logits).max()) / largest


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -500, 500))))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
