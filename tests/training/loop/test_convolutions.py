"""A convolution's gradient is the same whichever way it is computed."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from training.configs.train_sections import TrainConfig
from training.loop.arithmetic import autocast
from training.loop.budget import Work, make_plan
from training.loop.convolutions import DEEP, ProductConv2d, has_deep, use_products
from training.loop.timing import step_modes, time_steps

CPU = torch.device("cpu")


def deep(**changes: object) -> nn.Conv2d:
    """A convolution that is eligible, but for what is changed."""
    usual = {"kernel_size": 3, "padding": 1, "bias": False}
    return nn.Conv2d(DEEP, 16, **(usual | changes))


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
@pytest.mark.parametrize("size", [(7, 7), (3, 5), (1, 1)])
def test_products_give_the_gradients_of_torch(precision, within, size):
    """Of the weights and of what came in, at any size."""
    torch.manual_seed(0)
    network = nn.Sequential(deep(), nn.GELU())
    images = torch.randn(4, DEEP, *size).contiguous(memory_format=torch.channels_last)

    plain = gradients(network, images, precision, products=False)
    by_products = gradients(network, images, precision, products=True)

    for one, other in zip(plain, by_products, strict=True):
        assert one.dtype == other.dtype
        assert ((one - other).norm() / one.norm()).item() < within


def test_a_network_can_have_them_and_lose_them_again():
    """With the same names and weights all the time."""
    network = nn.Sequential(deep(), nn.Conv2d(16, 4, 3))
    before = copy.deepcopy(network.state_dict())

    use_products(network, True)
    assert [type(module) for module in network] == [ProductConv2d, nn.Conv2d]
    assert has_deep(network)
    use_products(network, False)

    assert [type(module) for module in network] == [nn.Conv2d, nn.Conv2d]
    assert all(torch.equal(network.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize(
    "module",
    [
        deep(stride=2),
        deep(padding=0),
        deep(groups=2),
        deep(bias=True),
        deep(kernel_size=1, padding=0),
        nn.Conv2d(DEEP - 1, 8, 3, padding=1, bias=False),
        nn.Linear(DEEP, 8),
    ],
    ids=lambda module: str(module)[:60],
)
def test_every_other_layer_stays_as_it_is(module):
    """The product is written for the one kind that takes the time."""
    assert not has_deep(module)


def test_what_needs_no_gradient_is_torchs_own_convolution(monkeypatch):
    """Validation, and the graph that is exported."""
    network = deep()
    use_products(network, True)
    monkeypatch.setattr("training.loop.convolutions._Convolution.apply", None)
    images = torch.randn(1, DEEP, 3, 3)

    with torch.no_grad():
        assert network(images).shape == (1, 16, 3, 3)


def test_products_are_tried_where_they_can_pay():
    """Not where the precision is given, there is no deep layer, or a GPU."""
    plain = (("fp32", False), ("bf16", False))

    assert step_modes("auto", deep(), CPU) == (*plain, ("bf16", True))
    assert step_modes("auto", nn.Linear(2, 2), CPU) == plain
    assert step_modes("auto", deep(), torch.device("cuda")) == plain
    assert step_modes("bf16", deep(), CPU) == (("bf16", False),)


@pytest.mark.parametrize("products_pay", [True, False])
def test_the_way_that_costs_least_is_planned(monkeypatch, products_pay):
    """By the clock alone."""
    dearer = "bf16" if products_pay else "bf16 with products"
    seconds = {"fp32": 3.0, "bf16": 2.0, "bf16 with products": 2.0, dearer: 2.5}
    monkeypatch.setattr("training.loop.timing.time_steps", lambda *_, **__: seconds)
    config = TrainConfig(epochs=1, batch_size=10, precision="auto")

    plan = make_plan(deep(), lambda *_: None, config, (1.0,), Work(100, 10, 0))

    assert (plan.precision, plan.products) == ("bf16", products_pay)
    assert plan.measured == seconds


def test_ways_are_timed_by_turns():
    """What slows the machine down for a while slows all of them."""
    turns = []
    steps = {name: partial(turns.append, name) for name in ("a", "b")}

    times = time_steps(steps, CPU, 0.0)

    assert turns == ["a", "b"] * (len(turns) // 2)
    assert set(times) == {"a", "b"}
