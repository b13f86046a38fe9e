"""fp32 graph + real images → **ranges**: what 8 bits have to span, tensor by tensor.

The range from the smallest to the largest value seen wastes steps on a few outliers;
the one that leaves the smallest squared error, clipping included, is chosen among
shrunken ones. Nagel et al., arXiv:2106.08295, on setting quantization ranges.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from classifier.session import INPUT
from training.data.pieces import in_pieces
from training.graphs.graph import GraphError, open_session

Ranges = Mapping[str, tuple[float, float]]  # tensor → (lowest, highest)

SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
LEVELS = 255  # steps of an unsigned byte
VALUES = 2048  # of each tensor, drawn from each piece, on which errors are measured
PIECE = 4  # images at a time: all inner tensors of them are in memory at once


def find_ranges(
    model: onnx.ModelProto, names: Iterable[str], batches: Iterable[NDArray[np.uint8]]
) -> Ranges:
    """The range of least squared error of each tensor in `names`.

    `batches` are pixels, uint8 [N, H, W, C].

    Raises:
        GraphError: no batch, the graph does not run, or a value is not finite.
    """
    wanted = list(names)
    lowest = dict.fromkeys(wanted, np.inf)
    highest = dict.fromkeys(wanted, -np.inf)
    drawn: dict[str, list[NDArray[np.float32]]] = {name: [] for name in wanted}
    generator = np.random.default_rng(0)
    for seen in watch(model, wanted, small_pieces(batches)):
        for name, values in seen.items():
            # unlike min and max, these pass NaN on
            lowest[name] = float(np.minimum(lowest[name], values.min()))
            highest[name] = float(np.maximum(highest[name], values.max()))
            drawn[name].append(generator.choice(values.ravel(), VALUES))
    if not all(drawn.values()):
        raise GraphError("quantization ranges need at least one batch")
    for name in wanted:
        if not np.isfinite([lowest[name], highest[name]]).all():
            raise GraphError(f"the values of tensor {name!r} are not finite numbers")
    return {
        name: shrink(lowest[name], highest[name], np.concatenate(drawn[name]))
        for name in wanted
    }


def small_pieces(
    batches: Iterable[NDArray[np.uint8]],
) -> Iterator[NDArray[np.uint8]]:
    """The same images, few at a time: many inner tensors of each are in memory."""
    for batch in batches:
        yield from in_pieces(batch, size=PIECE)


def watch(
    model: onnx.ModelProto, names: list[str], batches: Iterable[NDArray[np.uint8]]
) -> Iterable[dict[str, NDArray[np.float32]]]:
    """Run batches and yield the values of inner tensors, batch by batch.

    Raises:
        GraphError: the graph does not run.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    outputs = {output.name for output in model.graph.output}
    for name in names:
        if name not in outputs:
            info = onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            probed.graph.output.append(info)
    session = open_session(probed.SerializeToString())
    for batch in batches:
        try:
            values = session.run(names, {INPUT: batch})
        except Exception as error:  # a border: ONNX Runtime's classes share no base
            raise GraphError(f"the graph does not run: {error}") from error
        yield dict(zip(names, values, strict=True))


def shrink(
    lowest: float, highest: float, values: NDArray[np.float32]
) -> tuple[float, float]:
    """The share of lowest..highest (with 0 in it) that represents `values` best."""
    low, high = min(lowest, 0.0), max(highest, 0.0)  # zero must be exact: padding
    if low == high:
        return low, high
    errors = [rounding_error(s * low, s * high, values) for s in SHRINKS]
    best = SHRINKS[int(np.argmin(errors))]
    return best * low, best * high


def rounding_error(low: float, high: float, values: NDArray[np.float32]) -> float:
    """Mean squared error of `values` in the 256 levels of low..high."""
    step = (high - low) / LEVELS
    zero = round(-low / step)
    levels = np.clip(np.round(values / step) + zero, 0, LEVELS)
    return float(np.mean(((levels - zero) * step - values) ** 2))
