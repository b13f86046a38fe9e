"""network + image size → **what an image costs**: multiply-accumulates.

Counted are convolutions and linear layers, as the papers count; norms, activations and
pooling are a few percent more. One multiply-accumulate is two operations.
"""

import math

import torch
from torch import Tensor, nn

from training.networks.modes import evaluating


def count_macs(network: nn.Module, *, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image of `shape` (height, width, channels).

    Runs the network once on an image of its own device; on `meta` that costs nothing.
    """
    total = 0

    def count(
        layer: nn.Conv2d | nn.Linear, _: tuple[Tensor, ...], output: Tensor
    ) -> None:
        nonlocal total
        # Each output element is one dot product with the weights that reach it.
        total += output.numel() * math.prod(layer.weight.shape[1:])

    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    height, width, channels = shape
    weight = next(network.parameters())
    image = torch.zeros(
        1, channels, height, width, device=weight.device, dtype=weight.dtype
    )
    try:
        with evaluating(network), torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def count_parameters(network: nn.Module) -> int:
    """Numbers that a checkpoint must bring, without running averages."""
    return sum(parameter.numel() for parameter in network.parameters())
