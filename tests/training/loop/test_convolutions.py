"""A convolution and its gradients are the same whichever way they are computed."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from training.configs.train_sections import TrainConfig
from training.loop.arithmetic import autocast
from training.loop.budget import Work, make_plan
from training.loop.convolutions import (
    CHANNELS,
    ProductConv2d,
    has_choice,
    use_products,
)
from training.loop.timing import step_modes, time_steps

CPU = torch.device("cpu")


def convolution(channels: int = CHANNELS, **changes: object) -> nn.Conv2d:
    """One that can be a product, but for what is changed."""
    usual = {"kernel_size": 3, "padding": 1, "bias": False}
    return nn.Conv2d(channels, CHANNELS, **(usual | changes))


def one_pixel(channels: int = 8, **changes: object) -> nn.Conv2d:
    """The same, with a filter of one pixel."""
    return convolution(channels, kernel_size=1, padding=0, **changes)


def gradients(network, images, precision, *, products):
    """The output and all gradients of a network that is copied."""
    copied = copy.deepcopy(network)
    use_products(copied, products)
    leaf = images.clone().requires_grad_()
    with autocast(CPU, precision):
        output = copied(leaf)
    output.float().square().sum().backward()
    return [output.float(), leaf.grad, *(p.grad for p in copied.parameters())]


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.parametrize(
    ("stride", "size"),
    # Not 1x1 with a stride of 2: in bf16 oneDNN's own gradient is garbage there.
    [(1, size) for size in ((1, 1), (3, 5), (4, 4), (7, 8), (9, 9), (12, 17))]
    + [(2, size) for size in ((2, 2), (3, 5), (8, 8), (15, 16), (17, 19))],
)
@pytest.mark.parametrize("kind", [convolution, one_pixel])
def test_products_are_what_torch_computes(kind, stride, size, precision, within):
    """The output, and the gradients of weights and of what came in, at any size."""
    torch.manual_seed(0)
    first = kind(stride=stride)
    network = nn.Sequential(first, nn.GELU(), one_pixel(CHANNELS))
    images = torch.randn(4, first.in_channels, *size)
    images = images.contiguous(memory_format=torch.channels_last)

    plain = gradients(network, images, precision, products=False)
    by_products = gradients(network, images, precision, products=True)

    for one, other in zip(plain, by_products, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert ((one - other).norm() / one.norm()).item() < within


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize(("stride", "size"), [(1, 1), (1, 4), (1, 8), (2, 8), (2, 12)])
@pytest.mark.parametrize("kind", [convolution, one_pixel])
def test_what_stands_behind_may_change_the_output_in_place(
    kind, stride, size, images, precision
):
    """As many a network's ReLU does, also where a batch is empty."""
    torch.manual_seed(0)
    first = kind(stride=stride)
    leaf = torch.randn(images, first.in_channels, size, size)
    apart, in_place = (nn.Sequential(first, nn.ReLU(way)) for way in (False, True))

    expected = gradients(apart, leaf, precision, products=True)
    found = gradients(in_place, leaf, precision, products=True)

    assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
    assert found[0].shape[0] == images


def test_a_network_can_have_them_and_lose_them_again():
    """With the same names and weights all the time."""
    network = nn.Sequential(convolution(), nn.Conv2d(CHANNELS, 4, 3))
    before = copy.deepcopy(network.state_dict())

    use_products(network, True)
    assert [type(module) for module in network] == [ProductConv2d, nn.Conv2d]
    assert has_choice(network)
    use_products(network, False)

    assert [type(module) for module in network] == [nn.Conv2d, nn.Conv2d]
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize(
    "module",
    [
        convolution(stride=3),
        convolution(stride=(1, 2)),
        convolution(padding=0),
        convolution(padding_mode="reflect"),
        convolution(dilation=2, padding=2),
        convolution(groups=2),
        convolution(bias=True),
        convolution(kernel_size=(1, 3), padding=(0, 1)),
        convolution(kernel_size=5, padding=2),
        convolution(CHANNELS - 1),
        one_pixel(bias=True),
        nn.Linear(CHANNELS, 8),
    ],
    ids=lambda module: str(module)[:60],
)
def test_every_other_layer_stays_as_it_is(module):
    """Products are written for the kinds that take the time."""
    assert not has_choice(module)


@pytest.mark.parametrize("network", [convolution(), one_pixel(CHANNELS)])
def test_what_needs_no_gradient_is_torchs_own_convolution(monkeypatch, network):
    """Validation, and the graph that is exported."""
    use_products(network, True)
    monkeypatch.setattr("training.loop.convolutions._Convolution.apply", None)
    monkeypatch.setattr("training.loop.convolutions._pointwise", None)
    images = torch.randn(1, CHANNELS, 3, 3)

    with torch.no_grad():
        assert network(images).shape == (1, CHANNELS, 3, 3)


def test_products_are_tried_where_they_can_pay():
    """Not where the precision is given, no layer could be one, or on a GPU."""
    plain = (("fp32", False), ("bf16", False))
    products = (("fp32", True), ("bf16", True))

    assert step_modes("auto", convolution(), CPU) == (*plain, *products)
    assert step_modes("auto", nn.Linear(2, 2), CPU) == plain
    assert step_modes("auto", convolution(), torch.device("cuda")) == plain
    assert step_modes("bf16", convolution(), CPU) == (("bf16", False),)


@pytest.mark.parametrize("products_pay", [True, False])
def test_the_way_that_costs_least_is_planned(monkeypatch, products_pay):
    """By the clock alone."""
    dearer = "bf16" if products_pay else "bf16 with products"
    seconds = {"fp32": 3.0, "bf16": 2.0, "bf16 with products": 2.0, dearer: 2.5}
    seconds["fp32 with products"] = 3.0
    monkeypatch.setattr("training.loop.timing.time_steps", lambda *_, **__: seconds)
    config = TrainConfig(epochs=1, batch_size=10, precision="auto")

    plan = make_plan(convolution(), lambda *_: None, config, (1.0,), Work(100, 10, 0))

    assert (plan.precision, plan.products) == ("bf16", products_pay)
    assert plan.measured == seconds


def test_ways_are_timed_by_turns(machine):
    """What slows the machine down for a while slows all of them."""
    turns = []

    def step(name):
        turns.append(name)
        machine.work(1.0)

    times = time_steps({name: partial(step, name) for name in ("a", "b")}, CPU, 0.0)

    assert turns == ["a", "b"] * (len(turns) // 2)
    assert times == {"a": 1.0, "b": 1.0}
