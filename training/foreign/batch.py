"""graph of a fixed batch → **graph of any batch**, as far as a graph allows.

Exporters that were not told otherwise write the batch of their example, usually 1, into
the input's shape and into the Reshape nodes. Both can be undone where the fixed number
stands in the batch's place; whether that was all is proven by `verify`, which runs
several images in one batch against the original, one by one.
"""

import numpy as np
from onnx import ModelProto, NodeProto

from training.graphs.graph import add_constant, attribute, constant

KEEP = 0  # in Reshape's shape: as the input has it


def free_batch(model: ModelProto, name: str) -> None:
    """Make the first dimension of the input `name` dynamic, in place."""
    batch = _declared_batch(model, name)
    # Shapes inferred for the fixed batch would contradict the free one.
    del model.graph.value_info[:]
    if batch is None:
        return
    for node in list(model.graph.node):
        if node.op_type == "Reshape":
            _free_reshape(model, node, batch)


def _declared_batch(model: ModelProto, name: str) -> int | None:
    """N as the input declares it; None where it is free already."""
    for value in model.graph.input:
        if value.name == name:
            dim = value.type.tensor_type.shape.dim[0]
            return dim.dim_value or None
    return None


def _free_reshape(model: ModelProto, node: NodeProto, batch: int) -> None:
    """[1, 512] → [0, 512]: the first place keeps what comes in."""
    shape = constant(model, node.input[1])
    if shape is None or shape.size == 0 or shape[0] != batch:
        return
    if constant(model, node.input[0]) is not None:  # weights have no batch
        return
    if attribute(node, "allowzero", 0):  # PyTorch sets it, and 0 would mean nothing
        if 0 in shape:
            return
        kept = [a for a in node.attribute if a.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    freed = np.array([KEEP, *shape[1:]], dtype=np.int64)
    # A new constant: another node may read the old one.
    node.input[1] = add_constant(model, f"{node.input[1]}/free", freed)
