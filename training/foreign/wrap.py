"""graph + facts → **graph of a bundle**: `pixels` uint8 in, `logits` float32 out.

pixels [N, H, W, C] → (reverse channels) → (transpose) → (cast) → (subtract) → (divide)
    → (cast) → the foreign graph → cast → [N, K] → (logarithm) → (difference) → logits
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper

from classifier.manifest import Task
from classifier.session import INPUT, OUTPUT
from training.foreign.batch import free_batch
from training.foreign.facts import Facts
from training.graphs.graph import (
    GraphError,
    drop_unused,
    producers,
    rewire,
    serialize,
    sort_nodes,
)

# Probabilities nearer to 0 or 1 than this are taken for it: log(0) is no logit, and
# float32 hardly tells them from 0 and 1.
NEAREST = 1e-7
PREFIX = "foreign/"  # keeps the stranger's names away from ours
OURS = "linnaeus/"

Constant = NDArray[np.generic] | np.generic


def wrap(model: ModelProto, facts: Facts) -> bytes:
    """The bundle's graph; `model` is not changed.

    Raises:
        GraphError: the graph cannot be rewritten so.
    """
    wrapped = compose.add_prefix(model, PREFIX)
    free_batch(wrapped, PREFIX + facts.input)
    steps = Steps(wrapped, INPUT)
    feed(steps, facts)
    # whoever reads the foreign input reads what was made of the pixels
    rewire(wrapped.graph.node, PREFIX + facts.input, steps.tensor)
    steps.tensor = scores_tensor(wrapped, facts)
    finish(steps, facts)
    _set_ends(wrapped, facts)
    sort_nodes(wrapped)
    graph = serialize(wrapped)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except Exception as error:  # a border: two libraries' worth of classes
        raise GraphError(f"the graph cannot be wrapped: {error}") from error
    return graph


@dataclass
class Steps:
    """Nodes in a row, each working on the tensor that the last one made."""

    model: ModelProto
    tensor: str
    count: int = 0

    def add(self, op: str, *constants: Constant, **attributes: object) -> None:
        """One node: the tensor and some constants in, the next tensor out."""
        self.count += 1
        name = f"{OURS}{self.count}/{op}"
        inputs = [self.tensor]
        for index, value in enumerate(constants):
            inputs.append(f"{name}/{index}")
            tensor = numpy_helper.from_array(np.asarray(value), inputs[-1])
            self.model.graph.initializer.append(tensor)
        node = helper.make_node(op, inputs, [name], name=name, **attributes)  # type: ignore[arg-type]
        self.model.graph.node.append(node)
        self.tensor = name


def feed(steps: Steps, facts: Facts) -> None:
    """Pixels, uint8 [N, H, W, C] → what the foreign graph eats."""
    if facts.reverse:
        steps.add("Gather", np.array([2, 1, 0]), axis=3)
    channels_first = facts.layout == "NCHW"
    if channels_first:
        steps.add("Transpose", perm=[0, 3, 1, 2])
    if facts.normalization is None:
        return
    steps.add("Cast", to=TensorProto.FLOAT)
    white, mean, std = facts.normalization
    shape = (-1, 1, 1) if channels_first else (-1,)
    # (p · white / 255 - mean) / std, with one rounding less and one node less
    shift = np.array(mean, np.float64) * 255 / white
    divisor = np.array(std, np.float64) * 255 / white
    if shift.any():
        steps.add("Sub", shift.astype(np.float32).reshape(shape))
    if (divisor != 1).any():
        steps.add("Div", divisor.astype(np.float32).reshape(shape))
    if facts.dtype == "float16":
        steps.add("Cast", to=TensorProto.FLOAT16)


def scores_tensor(model: ModelProto, facts: Facts) -> str:
    """The tensor with the scores; an activation at the very end is taken off."""
    name = PREFIX + facts.output
    if not facts.cut:
        return name
    tail = producers(model)[name]
    source: str = tail.input[0]
    model.graph.node.remove(tail)
    return source


def finish(steps: Steps, facts: Facts) -> None:
    """The foreign scores → logits, float32 [N, K]."""
    steps.add("Cast", to=TensorProto.FLOAT)
    steps.add("Reshape", np.array([-1, facts.classes]))
    if facts.scores != "logits" and not facts.cut:
        _undo_activation(steps, facts.scores)
    if facts.task is Task.BINARY and facts.classes == 2:  # noqa: PLR2004
        # softmax over two logits is a sigmoid of their difference
        steps.add("MatMul", np.array([[-1], [1]], np.float32))
    steps.model.graph.node[-1].output[0] = OUTPUT


def _undo_activation(steps: Steps, activation: str) -> None:
    """Probabilities → logits: log p, or log(p / (1 - p)) for a sigmoid."""
    steps.add("Clip", np.float32(NEAREST), np.float32(1 - NEAREST))
    if activation == "softmax":
        steps.add("Log")
        return
    # -log(1 / p - 1), which needs p only once
    steps.add("Reciprocal")
    steps.add("Sub", np.float32(1))
    steps.add("Log")
    steps.add("Neg")


def _set_ends(model: ModelProto, facts: Facts) -> None:
    """Declare our input and output in place of the foreign ones."""
    shape: list[str | int | None] = ["N", *facts.spec.shape]
    pixels = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)
    logits = helper.make_tensor_value_info(
        OUTPUT, TensorProto.FLOAT, ["N", facts.logits]
    )
    graph = model.graph
    del graph.input[:], graph.output[:]
    graph.input.append(pixels)
    graph.output.append(logits)
    drop_unused(model)
