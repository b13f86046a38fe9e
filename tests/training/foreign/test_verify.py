"""What the proof of an import sees, and how closely it looks."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from tests.training.foreign.importing import SAID
from tests.training.foreign.strangers import SIDE, photo, stranger
from tests.training.quantization.nets import change_constant
from training.foreign.answers import parse_answers
from training.foreign.facts import Facts, settle
from training.foreign.findings import examine
from training.foreign.verify import TOLERANCE, run_original, verify
from training.foreign.wrap import wrap
from training.graphs.graph import GraphError, parse, serialize

NORMALIZED = {name: SAID[name] for name in ("scale", "mean", "std")}
PREPARED = {name: SAID[name] for name in SAID if name not in NORMALIZED}
PIXELS = np.stack([photo(n, SIDE) for n in range(2)])


def facts_of(model: ModelProto, folder: Path, **said: str) -> Facts:
    """Those of a stranger's graph."""
    labels = folder / "labels.txt"
    labels.write_text("a\nb\nc\nd")
    if model.graph.input[0].type.tensor_type.elem_type != TensorProto.UINT8:
        said |= NORMALIZED
    answers = parse_answers({**PREPARED, "labels": str(labels), **said})
    return settle(examine(model), answers)


def moved(graph: bytes, by: float) -> bytes:
    """The wrapped graph with the logits of one class moved."""
    model = parse(graph)

    def move(old: NDArray[np.generic]) -> NDArray[np.generic]:
        return old + np.array([by, 0, 0, 0], old.dtype)

    change_constant(model, "foreign/bias", move)
    return serialize(model)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_wrapped_graph_may_be_off_by_little_and_not_by_more(tmp_path, dtype):
    """As a share of the largest score: a thousandth, or what float16 rounds."""
    share = {"float32": 1e-3, "float16": 2e-2, "uint8": 1e-3}[dtype]
    model = stranger(dtype=dtype)
    facts = facts_of(model, tmp_path)
    original = model.SerializeToString()
    wrapped = wrap(model, facts)
    largest = np.abs(run_original(original, facts, PIXELS)).max()

    off = verify(original, moved(wrapped, 0.5 * share * largest), facts, PIXELS)

    assert 0.3 * share < off < 0.7 * share
    with pytest.raises(GraphError, match="off by"):
        verify(original, moved(wrapped, 2 * share * largest), facts, PIXELS)
    with pytest.raises(GraphError, match="off by nan"):
        verify(original, moved(wrapped, np.nan), facts, PIXELS)


def test_an_original_that_does_not_run_is_refused(tmp_path):
    """On an image of the size that was said, where the graph left it open."""
    model = stranger()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    original = model.SerializeToString()
    facts = facts_of(model, tmp_path, size="8x8", layout="NCHW")

    larger, odd = (np.stack([photo(0, side)]) for side in (2 * SIDE, SIDE + 1))
    with pytest.raises(GraphError, match="16 scores for 1 images; 4 were expected"):
        run_original(original, facts, larger)
    with pytest.raises(GraphError, match="the original graph does not run"):
        run_original(original, facts, odd)


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    """Whatever the wrapped graph makes of them."""
    model = stranger()
    change_constant(model, "bias", lambda old: old * np.nan)
    facts = facts_of(model, tmp_path)

    with pytest.raises(GraphError, match="scores that are not finite"):
        verify(model.SerializeToString(), wrap(model, facts), facts, PIXELS)
