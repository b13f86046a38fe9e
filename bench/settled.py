"""fresh network → **settled network**: random weights whose numbers can be compared.

What an export is compared with need not be trained, but it has to be well-conditioned.
Batch norms need averages that fit: one forward pass in training mode gives them those
of its images. And a deep network of random weights with batch norm amplifies any
difference from layer to layer (Yang et al., arXiv:1902.08129), float32's rounding too:
torch then differs from itself in float64 by 1e-4 and more. So the last layer of each of
L residual branches is divided by √L, and all branches together add about as much as the
shortcut carries (De and Smith, arXiv:2002.10444). Every layer still takes part.
"""

import math

import torch
from torch import Tensor, nn

from training.networks.dpn import CifarBlock, DualPathBlock
from training.networks.efficientnet_lite import InvertedResidual, SeparableBlock
from training.networks.preact_resnet import PreActBlock
from training.networks.resnet import BasicBlock, Bottleneck

# What each kind of block adds to its shortcut comes out of this layer.
LAST: dict[type[nn.Module], str] = {
    BasicBlock: "bn2",
    Bottleneck: "bn3",
    PreActBlock: "conv2",
    DualPathBlock: "c1x1_c.conv",
    CifarBlock: "bn3",
    SeparableBlock: "bn2",
    InvertedResidual: "bn3",
}


def settle(network: nn.Module, whole: nn.Module, images: Tensor) -> None:
    """Change the network in place, and leave it in evaluation mode.

    `whole` takes `images` and runs the network, with whatever stands before it.
    """
    calm_branches(network)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the averages are those of the one pass
    with torch.no_grad():
        whole.train()(images)
    network.eval()


def calm_branches(network: nn.Module) -> None:
    """Divide what the last layer of each residual branch returns by √L."""
    lasts = [
        block.get_submodule(LAST[type(block)])
        for block in network.modules()
        if type(block) in LAST
    ]
    with torch.no_grad():
        for last in lasts:
            for parameter in last.parameters():
                parameter.div_(math.sqrt(len(lasts)))
