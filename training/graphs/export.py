"""network → **graph**: torch to one ONNX file that eats pixels.

The graph takes `pixels` uint8 `[N, H, W, C]` with any N and returns `logits` float32
`[N, K]`. Layout change and normalization are its first nodes, so nobody can mistype a
mean when serving. What comes out is plain: BatchNorm folded into the convolution before
it, padding as constants, `GlobalAveragePool → Flatten → Gemm` at the end where the
network has them, and no trace of the machine that made it.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper
from torch import Tensor, nn

from classifier.session import INPUT, OUTPUT
from training.configs.sections import DataConfig
from training.graphs import graph as onnx_graph
from training.graphs.graph import GraphError

OPSET = 20
# A batch of one could be mistaken for a constant; two examples prove that N is free.
EXAMPLE_BATCH = 2


class PixelsToLogits(nn.Module):
    """Normalization, then the network: what the exporter sees."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        # Given on the 0..1 scale, kept on that of the pixels: one division less.
        self.register_buffer("mean", 255 * channels_first(mean))
        self.register_buffer("std", 255 * channels_first(std))

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 `[N, H, W, C]` → logits float32 `[N, K]`."""
        # Without contiguous() the exporter traces strides: twenty nodes of arithmetic.
        x = pixels.permute(0, 3, 1, 2).contiguous().float()  # [N, C, H, W]
        logits: Tensor = self.network((x - self.mean) / self.std)  # [N, K]
        return logits


def channels_first(values: Sequence[float]) -> Tensor:
    """One number a channel, float32 `[1, C, 1, 1]`."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def export_graph(
    network: nn.Module,
    *,
    shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    classes: int,
) -> bytes:
    """The network as an ONNX file, opset 20; the network itself is left as it was.

    Args:
        network: takes normalized float `[N, C, H, W]`, returns logits `[N, K]`.
        shape: height, width and channels of the pixels.
        mean: a channel, of pixels / 255.
        std: a channel, of pixels / 255.
        classes: K, checked against what the network returns.

    Raises:
        GraphError: mean, std or classes do not fit, or an operator has no ONNX form.
    """
    check_normalization(mean, std, channels=shape[2])
    frozen = copy.deepcopy(network).cpu().float()
    # A network trained in channels_last would drag its strides into the graph.
    frozen.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    pixels = torch.zeros(EXAMPLE_BATCH, *shape, dtype=torch.uint8)
    exported = trace(PixelsToLogits(frozen, mean, std).eval(), pixels)
    found = exported.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if found != classes:
        raise GraphError(f"the network returns {found} logits; {classes} were expected")
    pool_globally(exported)
    return onnx_graph.serialize(exported)


def export_network(network: nn.Module, data: DataConfig, *, classes: int) -> bytes:
    """What `data` says of pixels and normalization: the graph that is served.

    Raises:
        GraphError: as `export_graph`.
    """
    return export_graph(
        network, shape=data.spec.shape, mean=data.mean, std=data.std, classes=classes
    )


def check_normalization(
    mean: Sequence[float], std: Sequence[float], *, channels: int
) -> None:
    """One finite mean and one positive std for each channel, on the 0..1 scale.

    Raises:
        GraphError: otherwise.
    """
    if len(mean) != channels or len(std) != channels:
        raise GraphError(
            f"mean has {len(mean)} numbers and std {len(std)}; "
            f"the pixels have {channels} channels"
        )
    if not all(0 <= m <= 1 for m in mean) or not all(0 < s <= 1 for s in std):
        raise GraphError(
            f"mean {list(mean)} and std {list(std)} must be of pixels / 255: "
            "mean in 0..1, std above 0 and at most 1"
        )


def trace(module: nn.Module, pixels: Tensor) -> ModelProto:
    """Run the exporter over one example; N stays open.

    Raises:
        GraphError: an operator has no ONNX form, or the shape does not fit the network.
    """
    try:
        with torch.no_grad():
            module(pixels)  # a wrong shape fails here, in words of the network's layers
        with quiet_exporter():
            program = torch.onnx.export(
                module,
                (pixels,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: "batch"},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except RuntimeError as error:  # torch.onnx.OnnxExporterError is one
        raise GraphError(
            f"cannot export for pixels {list(pixels.shape[1:])}: {error}"
        ) from error
    return cast(torch.onnx.ONNXProgram, program).model_proto


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Without the exporter's remarks on torchvision's absence and on its own future."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
            yield
    finally:
        logger.setLevel(level)


def pool_globally(model: ModelProto) -> None:
    """`ReduceMean` over height and width → `GlobalAveragePool → Flatten`.

    The exporter spells global pooling as a mean and a reshape. The operators made for
    it say what they are, have integer kernels, and let class-activation maps be found.
    """
    readers = onnx_graph.consumers(model)
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and is_spatial_mean(model, node):
            node.op_type = "GlobalAveragePool"
            del node.input[1:], node.attribute[:]
            for reshape in readers.get(node.output[0], ()):
                if reshape.op_type == "Reshape" and is_flattening(model, reshape):
                    reshape.op_type = "Flatten"
                    del reshape.input[1:], reshape.attribute[:]
                    reshape.attribute.append(helper.make_attribute("axis", 1))
    onnx_graph.drop_unused(model)


def is_spatial_mean(model: ModelProto, node: NodeProto) -> bool:
    """True where `[N, C, H, W]` becomes `[N, C, 1, 1]`."""
    if len(node.input) == 1:  # of everything: torch's mean() without axes
        return False
    axes = onnx_graph.constant(model, node.input[1])
    kept = onnx_graph.attribute(node, "keepdims", 1) == 1
    return kept and axes is not None and sorted(axes.tolist()) in ([-2, -1], [2, 3])


def is_flattening(model: ModelProto, reshape: NodeProto) -> bool:
    """True where `[N, C, 1, 1]` becomes `[N, C]`, and not groups of channels."""
    shapes = {
        info.name: list(info.type.tensor_type.shape.dim)
        for info in [*model.graph.value_info, *model.graph.output]
    }
    pooled, made = (shapes.get(n) for n in (reshape.input[0], reshape.output[0]))
    return pooled is not None and made == pooled[:2]


def parity(
    network: nn.Module,
    graph: bytes,
    pixels: NDArray[np.uint8],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> float:
    """Largest difference of any logit, torch against ONNX Runtime, on the CPU.

    Pixels are uint8 `[N, H, W, C]`; the network is not changed.
    """
    frozen = copy.deepcopy(network).cpu().float().eval()
    with torch.no_grad():
        expected = PixelsToLogits(frozen, mean, std)(torch.from_numpy(pixels)).numpy()
    return float(np.abs(onnx_graph.run(graph, [pixels]) - expected).max())
