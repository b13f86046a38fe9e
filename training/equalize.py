"""fp32 graph → **the same function, easier to quantize**: channels of equal range.

A tensor that passes no activation function may have each channel scaled down where it
is made and up where it is used, and nothing changes: s · (W x) / s. One scale per
tensor then serves all channels, instead of only the loudest. Nagel et al.,
arXiv:1906.04721 (there between pairs of layers, here along whole residual chains, whose
tensors must share their scales because they are added).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from training.graph import attribute, consumers, producers
from training.ranges import watch

# A channel is never made louder than this many times: a silent one must not turn the
# noise of its weights into signal.
MAX_GAIN = 32.0


@dataclass
class Chain:
    """Tensors [N, C, h, w] tied together by additions, between convolutions."""

    tensors: list[str] = field(default_factory=list)
    makers: list[NodeProto] = field(default_factory=list)  # convolutions
    readers: list[NodeProto] = field(default_factory=list)  # convolutions, one group


def equalize(
    model: onnx.ModelProto, batches: Sequence[NDArray[np.uint8]]
) -> onnx.ModelProto:
    """Scale the channels of every chain so that each fills the tensor's range.

    `batches` are pixels, uint8 [N, H, W, C], on which channels are measured.
    """
    chains = find_chains(model)
    peaks = measure_peaks(model, [t for c in chains for t in c.tensors], batches)
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    weights = {t.name: t for t in scaled.graph.initializer}
    for chain in chains:
        peak = np.max([peaks[name] for name in chain.tensors], axis=0)  # [C]
        scale = np.maximum(peak / max(peak.max(), 1e-30), 1 / MAX_GAIN)
        for node in chain.makers:
            _multiply(weights[node.input[1]], 1 / scale[:, None, None, None])
            for bias in node.input[2:]:
                _multiply(weights[bias], 1 / scale)
        for node in chain.readers:
            _multiply(weights[node.input[1]], scale[None, :, None, None])
    return scaled


def find_chains(model: onnx.ModelProto) -> list[Chain]:
    """The chains of a graph that may be scaled: convolution → additions → convolutions.

    A chain that anything else touches is left alone: an activation, an output, or a
    weight that two layers share.
    """
    made_by, read_by = producers(model), consumers(model)
    outputs = {output.name for output in model.graph.output}
    values = {tensor.name for tensor in model.graph.initializer}
    chains = []
    seen: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Conv" or node.output[0] in seen:
            continue
        tensors = _tied(node.output[0], made_by, read_by)
        seen.update(tensors)
        chain = Chain(tensors=sorted(tensors))
        makers = [made_by.get(name) for name in chain.tensors]
        readers = [n for name in chain.tensors for n in read_by.get(name, ())]
        chain.makers = [n for n in makers if n is not None and n.op_type == "Conv"]
        chain.readers = [n for n in readers if n.op_type == "Conv"]
        convolutions = [*chain.makers, *chain.readers]
        free = (
            all(n is not None and n.op_type in ("Conv", "Add") for n in makers)
            and all(n.op_type in ("Conv", "Add") for n in readers)
            and all(attribute(n, "group", 1) == 1 for n in chain.readers)
            and all(name in values for n in convolutions for name in n.input[1:])
            and all(
                len(read_by[name]) == 1 for n in convolutions for name in n.input[1:]
            )
        )
        if free and chain.readers and outputs.isdisjoint(tensors):
            chains.append(chain)
    return chains


def _tied(
    start: str, made_by: dict[str, NodeProto], read_by: dict[str, list[NodeProto]]
) -> set[str]:
    """All tensors that additions tie to `start`."""
    tied: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in tied:
            continue
        tied.add(name)
        maker = made_by.get(name)
        adds = [n for n in [maker, *read_by.get(name, ())] if n and n.op_type == "Add"]
        for node in adds:
            waiting.extend([*node.input, *node.output])
    return tied


def measure_peaks(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[NDArray[np.uint8]]
) -> dict[str, NDArray[np.float64]]:
    """Tensor → the largest magnitude of each of its channels, [C]."""
    peaks: dict[str, NDArray[np.float64]] = {}
    for seen in watch(model, list(names), batches) if names else ():
        for name, values in seen.items():
            peak = np.abs(values).max(axis=(0, 2, 3)).astype(np.float64)
            peaks[name] = np.maximum(peaks.get(name, 0), peak)
    return peaks


def _multiply(tensor: TensorProto, factor: NDArray[np.float64]) -> None:
    values = numpy_helper.to_array(tensor) * factor
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
