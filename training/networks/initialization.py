"""fresh layers → **layers that train**: the starting weights of torchvision."""

from torch import nn


def kaiming(module: nn.Module) -> None:
    """Normal weights that keep the gradient's variance through a ReLU.

    He et al., "Delving Deep into Rectifiers", ICCV 2015 (arXiv:1502.01852), fan-out.
    In a grouped layer it shrinks, for torch counts the outputs of all groups; a norm
    follows those. The forms of kuangliu/pytorch-cifar start so too here, where theirs
    start as torch's layers come. Made for `network.apply`; touches convolutions only.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def small_linear(module: nn.Module) -> None:
    """Normal with deviation 0.01 and zero bias, as torchvision's VGG starts.

    The paper has a variance of 0.01, for all layers.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
