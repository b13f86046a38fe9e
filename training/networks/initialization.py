"""fresh layers → **layers that train**: the starting weights of the papers."""

from torch import nn


def kaiming(module: nn.Module) -> None:
    """Normal weights that keep the gradient's variance through a ReLU.

    He et al., "Delving Deep into Rectifiers", ICCV 2015 (arXiv:1502.01852), fan-out.
    Made for `network.apply`; touches convolutions only.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def small_linear(module: nn.Module) -> None:
    """Normal with deviation 0.01 and zero bias, as VGG's fully connected layers."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
