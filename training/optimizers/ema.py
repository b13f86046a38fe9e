"""weights → **their moving average**: what is evaluated and kept.

An average over the last steps lies nearer to the middle of the valley than any single
step does (Polyak and Juditsky, 1992; Izmailov et al., arXiv:1803.05407).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def given_back(network: nn.Module) -> Iterator[None]:
    """What the block does to the network's weights is undone after it."""
    own = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        yield
    finally:
        network.load_state_dict(own)


class MovingAverage:
    """Averages parameters and buffers: a <- decay * a + (1 - decay) * w each step.

    It begins at the first `update`, as a copy of the weights of that moment.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.averages: dict[str, Tensor] = {}
        self._network = network

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the network's weights."""
        current = self._network.state_dict()
        if not self.averages:
            self.averages = {name: value.clone() for name, value in current.items()}
            return
        for name, average in self.averages.items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - self.decay)
            else:  # counters, such as batch norm's
                average.copy_(current[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averages inside the block, and its own weights after."""
        with given_back(self._network):
            self._network.load_state_dict(self.averages)
            yield


class Lookahead:
    """Every `every` steps the weights jump to their slow average and go on from there.

    Zhang et al., arXiv:1907.08610; with an average that grows slower towards the end,
    as in Jordan, arXiv:2404.00498. Both evaluate the slow weights, not what a few steps
    have made of them since the last jump.
    """

    def __init__(self, network: nn.Module, *, every: int, decay: float) -> None:
        self.every, self.decay = every, decay
        self._network = network
        self.slow = {name: value.clone() for name, value in self._state().items()}

    @torch.no_grad()
    def update(self, step: int, progress: float) -> None:
        """Call after each step; does something every `every`-th time."""
        if (step + 1) % self.every:
            return
        decay = self.decay**self.every * progress**3
        for name, current in self._state().items():
            slow = self.slow[name]
            if slow.is_floating_point():
                slow.lerp_(current, 1 - decay)
                current.copy_(slow)

    @contextmanager
    def in_place(self, step: int) -> Iterator[None]:
        """The network has the slow weights inside the block, and its own after.

        `step` counts those done; before the first jump the network stays as it is.
        """
        with given_back(self._network):
            self.settle(step)
            yield

    @torch.no_grad()
    def settle(self, step: int) -> None:
        """Jump for the last time: leave the slow weights in the network.

        Before the first jump they are those that the training began with, and the
        network keeps its own.
        """
        if step < self.every:
            return
        for name, current in self._state().items():
            if current.is_floating_point():  # a counter goes on counting
                current.copy_(self.slow[name])

    def _state(self) -> dict[str, Tensor]:
        """The network's state, each tensor once: folded norms have two names.

        Under the second one the jump would start from where the first has led.
        """
        state, network = self._network.state_dict(), self._network
        own = [*dict(network.named_parameters()), *dict(network.named_buffers())]
        return {name: state[name] for name in own if name in state}
