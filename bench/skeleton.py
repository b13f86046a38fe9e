"""graph ↔ **skeleton**: the same ONNX graph with its big weights left out.

What a run costs does not depend on the weights. A skeleton is a few hundred KB, travels
to a GPU host that has neither exporter nor network, and is filled there with seeded
random weights (He et al., arXiv:1502.01852: activations neither die nor overflow fp16).
Speed only: the answers mean nothing.

    python -m bench.skeleton resnet50 efficientnet_lite0 --out build/gpu
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bench.options import command_line
from bench.random_bundle import build_graph

SHAPE, CLASSES = (224, 224, 3), 1000
SMALL = 4096  # values; smaller tensors (biases, constants) keep theirs
LEFT_OUT = "random weights go here"
FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def strip(graph: bytes) -> bytes:
    """Leave out the values of every big floating-point initializer."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.data_type in FLOATS and np.prod(tensor.dims) > SMALL:
            kept = TensorProto(
                name=tensor.name,
                dims=tensor.dims,
                data_type=tensor.data_type,
                doc_string=LEFT_OUT,
            )
            tensor.CopyFrom(kept)
    return bytes(model.SerializeToString())


def fill(skeleton: bytes, *, seed: int = 0) -> bytes:
    """Put random weights where they were left out; a whole graph stays as it is."""
    model = onnx.load_from_string(skeleton)
    noise = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.doc_string == LEFT_OUT:
            fan_in = int(np.prod(tensor.dims[1:])) or 1
            spread = (2 / fan_in) ** 0.5
            values = noise.normal(0, spread, tuple(tensor.dims))
            filled = values.astype(FLOATS[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))
    return bytes(model.SerializeToString())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write NAME.fp32.onnx and NAME.fp16.onnx for each network, as skeletons."""
    # The converter comes with the extra `train`; a GPU host only fills.
    from training.quantization.float16 import to_float16  # noqa: PLC0415

    parser = command_line("bench.skeleton", __doc__)
    parser.add_argument("networks", nargs="+", help="names of `linnaeus networks`")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        fp32 = build_graph(name, shape=SHAPE, classes=CLASSES)
        for precision, graph in (("fp32", fp32), ("fp16", to_float16(fp32))):
            path = options.out / f"{name}.{precision}.onnx"
            path.write_bytes(strip(graph))
            print(f"{path}  {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
