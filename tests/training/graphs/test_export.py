"""`export_graph`: the same numbers as torch, in a graph without debris."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from bench.settled import settle
from training.graphs.export import (
    PixelsToLogits,
    check_normalization,
    export_graph,
    parity,
)
from training.graphs.graph import GraphError
from training.networks import Network, build, table
from training.networks.densenet import DenseNet
from training.networks.dpn import DPN, DPN92, CifarDPN
from training.networks.preact_resnet import PreActResNet
from training.networks.resnet import (
    CIFAR_STEM,
    POINTWISE_STEM,
    BasicBlock,
    Bottleneck,
    ResNet,
)
from training.networks.vgg import CifarVGG

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
NEXT = {"stem": POINTWISE_STEM, "groups": 32, "group_width": 4}


def dpn_stages(*repeats: int):
    """Those of DPN-92, as many as there are numbers, with so many blocks."""
    stages = zip(DPN92, repeats, strict=False)
    return tuple(stage._replace(repeats=count) for stage, count in stages)


# Every kind of layer and of connection; deep networks with fewer repeats of the same,
# since what an export takes goes by the layers. `bench/networks.py` exports every
# network whole, and `tests/bench/test_networks.py` reads its record.
KINDS = {
    "lenet5": lambda: build("lenet5", classes=5),
    "alexnet_cifar": lambda: build("alexnet_cifar", classes=5),
    "vgg11_lrn_cifar": lambda: build("vgg11_lrn_cifar", classes=5),
    "vgg_bn_cifar": lambda: CifarVGG((64, "M", 512, "1x1", "M"), classes=5),
    "resnet": lambda: ResNet(BasicBlock, (1, 2), classes=5),
    "resnet_cifar": lambda: ResNet(Bottleneck, (1, 2), classes=5, stem=CIFAR_STEM),
    "preact_resnet_cifar": lambda: PreActResNet((1, 1, 1, 2), classes=5),
    "resnext_cifar": lambda: ResNet(Bottleneck, (1, 2), classes=5, **NEXT),
    "densenet": lambda: DenseNet((1, 2), classes=5),
    "densenet_cifar": lambda: DenseNet((1, 2), classes=5, cifar=True),
    "dpn": lambda: DPN(dpn_stages(1, 2), classes=5),
    "dpn_cifar": lambda: CifarDPN(dpn_stages(1, 1, 1, 2), classes=5),
    "fastcifar_94": lambda: build("fastcifar_94", classes=5),
}


def random_pixels(n: int, side: int = 32) -> np.ndarray:
    """uint8 [N, side, side, 3]."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@cache
def exported(kind: str) -> list[str]:
    """Its operators in order, if it has parity at batches of 1 and 5, a valid graph,
    and one file.
    """
    torch.manual_seed(0)
    network = KINDS[kind]()
    pixels = torch.from_numpy(random_pixels(32))
    settle(network, PixelsToLogits(network, MEAN, STD), pixels)
    graph = export_graph(network, shape=(32, 32, 3), mean=MEAN, std=STD, classes=5)
    for n in (1, 5):
        difference = parity(network, graph, random_pixels(n), mean=MEAN, std=STD)
        assert difference <= 1e-4
    model = onnx.load_from_string(graph)
    onnx.checker.check_model(model, full_check=True)
    return operators(model)


def operators(model: onnx.ModelProto) -> list[str]:
    """Of its nodes, in order."""
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_gives_torchs_logits_for_any_batch(kind):
    """Every family, with averages in its norms, at batches never seen when tracing."""
    assert not {"Gather", "GatherND", "Shape", "Pad", "Range"} & set(exported(kind))


def described(module: nn.Module) -> tuple[object, ...]:
    """Its kind, what else decides how it is exported, and the same of its parts."""
    geometry = ("kernel_size", "stride", "padding")
    return (
        type(module),
        *(getattr(module, name, None) for name in geometry),
        getattr(module, "groups", 1) > 1,
        getattr(module, "bias", None) is not None,
        *(described(part) for part in module.children()),
    )


def layers(network: Network) -> set[tuple[object, ...]]:
    """All that it is made of, blocks as well as the layers in them."""
    rows = (nn.Sequential, Network)  # as long as a network is deep
    found = {described(m) for m in network.modules() if not isinstance(m, rows)}
    return found | {(type(network),)}


def test_networks_for_small_images_have_only_layers_that_are_exported():
    """So a new kind of block cannot come in without an export of it."""
    small = [row.name for row in table() if row.dataset == "CIFAR-10"]
    with torch.device("meta"):  # without weights
        known = {layer for make in KINDS.values() for layer in layers(make())}
        unknown = {name: layers(build(name, classes=5)) - known for name in small}

    assert {name: found for name, found in unknown.items() if found} == {}


@pytest.fixture(scope="module")
def small() -> Network:
    """A LeNet for color images."""
    torch.manual_seed(0)
    return build("lenet5", classes=5).train()


@pytest.fixture(scope="module")
def small_graph(small) -> bytes:
    """Its graph."""
    return export_graph(small, shape=(32, 32, 3), mean=MEAN, std=STD, classes=5)


def test_the_graph_keeps_the_contract_of_a_bundle(small_graph):
    """uint8 [N, H, W, C] in, float32 [N, K] out, N open, operator set 20, one file."""
    model = onnx.load_from_string(small_graph)
    (pixels,), (logits,) = model.graph.input, model.graph.output

    def describe(port):
        kind = port.type.tensor_type
        dims = [d.dim_param or d.dim_value for d in kind.shape.dim]
        return port.name, kind.elem_type, dims

    assert describe(pixels) == (
        "pixels",
        onnx.TensorProto.UINT8,
        ["batch", 32, 32, 3],
    )
    assert describe(logits) == ("logits", onnx.TensorProto.FLOAT, ["batch", 5])
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert not any(t.external_data for t in model.graph.initializer)


def test_layout_and_normalization_come_first(small_graph):
    """Mean and std travel in the graph, on the scale of the pixels."""
    model = onnx.load_from_string(small_graph)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}

    first = [node.op_type for node in model.graph.node][:4]

    assert first == ["Transpose", "Cast", "Sub", "Div"]
    np.testing.assert_allclose(constants["mean"].ravel(), np.multiply(MEAN, 255))
    np.testing.assert_allclose(constants["std"].ravel(), np.multiply(STD, 255))


def test_nothing_of_the_machine_is_left_in_the_file(small_graph):
    """The exporter writes a stack trace with source paths on every node."""
    repository = str(Path(__file__).resolve().parents[3]).encode()

    assert repository not in small_graph
    assert b"stack_trace" not in small_graph
    assert str(Path(torch.__file__).parent).encode() not in small_graph


def test_the_same_network_gives_the_same_bytes(small, small_graph):
    """A bundle's SHA-256 stands for its content, not for the moment of export."""
    again = export_graph(small, shape=(32, 32, 3), mean=MEAN, std=STD, classes=5)

    assert again == small_graph


def test_export_leaves_the_network_alone(small, small_graph):
    """A network in the middle of training goes on training."""
    assert small.training
    assert all(p.requires_grad for p in small.parameters())


def test_channels_last_weights_export_like_any_other(small, small_graph):
    """The loop trains in that layout; it must not leak into the graph."""
    torch.manual_seed(0)
    network = build("lenet5", classes=5).to(memory_format=torch.channels_last)

    graph = export_graph(network, shape=(32, 32, 3), mean=MEAN, std=STD, classes=5)

    assert graph == small_graph


@pytest.mark.parametrize("kind", ["resnet", "resnet_cifar", "resnext_cifar"])
def test_norms_are_folded_and_the_end_is_recognizable(kind):
    """Class-activation maps look for GlobalAveragePool → Flatten → Gemm."""
    found = exported(kind)

    assert "BatchNormalization" not in found
    assert found[-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]


def test_parity_is_the_largest_difference_of_any_logit(small, small_graph):
    """Of the network as it answers, in whatever mode it was left."""
    other = copy.deepcopy(small).train()
    head = [part for part in other.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        head.bias[0] += 1

    off = parity(other, small_graph, random_pixels(3, 32), mean=MEAN, std=STD)

    assert off == pytest.approx(1, abs=1e-4)


def test_local_response_norm_is_one_node():
    """Torch's own becomes dozens."""
    found = exported("vgg11_lrn_cifar")

    assert (found.count("LRN"), len(found)) == (1, 29)


def test_pooling_to_a_grid_that_does_not_divide_is_two_nodes():
    """AlexNet pools 7x6 to 6x6 here: two products with constant matrices."""
    torch.manual_seed(0)
    with torch.device("meta"):
        pool = build("alexnet", classes=5).avgpool  # has no weights
    body = nn.Sequential(nn.Conv2d(3, 2, 3), pool)
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(72, 5))

    graph = export_graph(network, shape=(9, 8, 3), mean=MEAN, std=STD, classes=5)

    found = operators(onnx.load_from_string(graph))
    assert found.count("MatMul") == 2
    assert not {"Gather", "GatherND"} & set(found)
    pixels = random_pixels(3, 9)[:, :, :8]
    assert parity(network, graph, pixels, mean=MEAN, std=STD) <= 1e-5


def test_a_mean_that_leaves_out_its_sides_keeps_its_shape():
    """It is no pooling, which keeps sides of 1."""

    class Mean(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Mean(), nn.Linear(4, 5))

    graph = export_graph(network, shape=(8, 8, 3), mean=MEAN, std=STD, classes=5)

    assert parity(network, graph, random_pixels(3, 8), mean=MEAN, std=STD) <= 1e-5


class PooledInGroups(nn.Module):
    """Channels without the mean of all; pooled, in two groups with one head."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.head = nn.Conv2d(3, 8, 3), nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] → [N, 5]."""
        channels = self.filters(images)
        pooled = functional.adaptive_avg_pool2d(channels - channels.mean(), 1)
        return self.head(pooled.view(-1, 2, 4)).mean(1)


def test_a_reshape_behind_the_pooling_that_is_no_flatten_stays_one():
    """And a mean over everything is no pooling: both are exported as they are."""
    torch.manual_seed(0)
    network = PooledInGroups()

    graph = export_graph(network, shape=(9, 8, 3), mean=MEAN, std=STD, classes=5)

    found = operators(onnx.load_from_string(graph))
    assert "GlobalAveragePool" in found
    assert "Flatten" not in found
    # one image at a time, of which the mean of all is its own
    pixels = random_pixels(1, 9)[:, :, :8]
    assert parity(network, graph, pixels, mean=MEAN, std=STD) <= 1e-5


def test_pixels_from_0_to_1_are_a_normalization():
    """Nothing is subtracted, and what is divided by is 255."""
    check_normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), channels=3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mean": (0.5,)}, "mean has 1 numbers and std 3; the pixels have 3 channels"),
        ({"std": (0.2, 0.2)}, "mean has 3 numbers and std 2; the pixels have 3"),
        ({"std": (58.4, 57.1, 57.4)}, "must be of pixels / 255"),
        ({"std": (0.2, 0.0, 0.2)}, "std above 0"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "must be of pixels / 255"),
        ({"classes": 6}, "returns 5 logits; 6 were expected"),
        ({"shape": (32, 32, 4), "mean": (0.5,) * 4, "std": (0.2,) * 4}, "4 channels"),
        ({"shape": (4, 4, 3)}, "cannot export for pixels"),
    ],
)
def test_what_does_not_fit_is_refused(small, change, complaint):
    """Before a graph exists that would be wrong, and in words."""
    asked = {"shape": (32, 32, 3), "mean": MEAN, "std": STD, "classes": 5} | change

    with pytest.raises(GraphError, match=complaint):
        export_graph(small, **asked)
