"""network → **the same network, evaluating** for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside the block every layer evaluates; afterwards each is as it was.

    One by one: the norms may be frozen in a network that trains. Layers that came
    meanwhile get the mode of the network.
    """
    training = network.training
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        network.train(training)
        for module, mode in modes:
            module.training = mode
