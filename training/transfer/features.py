"""images + pretrained network → **features**: what its head sees, computed once.

The network runs as an exported graph in ONNX Runtime, which is two to three times as
fast as torch, on pixels from the same preprocessing as everything else. Axes: V views
of N images, D features.
"""

import copy
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, nn

from classifier.manifest import PreprocessSpec
from classifier.session import Session
from training.augmentation.augment import resized_crop
from training.configs.sections import DataConfig
from training.data.dataset import Samples, Split, read_pixels
from training.data.pieces import in_pieces
from training.files import durable
from training.graphs.export import export_graph
from training.loop.bar import open_bar
from training.networks import Network

LOGGER = logging.getLogger(__name__)

BATCH = 16  # on a CPU larger batches are slower
Pixels = NDArray[np.uint8]  # [N, H, W, C]
Features = NDArray[np.float32]  # [N, D]
Views = NDArray[np.float32]  # [V, N, D]


def embedding_graph(network: Network, data: DataConfig) -> bytes:
    """The network up to its head, as an ONNX graph with D outputs."""
    body = copy.deepcopy(network)
    width = body.head.in_features
    parent, _, name = body.head_name.rpartition(".")
    setattr(body.get_submodule(parent), name, nn.Identity())
    return export_graph(
        body, shape=data.spec.shape, mean=data.mean, std=data.std, classes=width
    )


def read_features(path: Path, *, images: int) -> Views | None:
    """Features of a cache, [V, N, D]; None where there are none that can be read.

    A machine that loses its power may leave less of a file than was written.
    """
    try:
        found: Views = np.load(path, allow_pickle=False)
        if found.ndim == 3 and found.shape[1] == images:  # noqa: PLR2004 - [V, N, D]
            return found
        reason = f"its shape is {found.shape}"
    except FileNotFoundError:
        return None
    except Exception as error:
        reason = str(error) or type(error).__name__
    LOGGER.warning("%s is damaged (%s); its features are computed again", path, reason)
    return None


class FeatureCache:
    """Features by content: the same images, graph and view are computed once."""

    def __init__(
        self,
        graph: bytes,
        data: DataConfig,
        folder: Path,
        *,
        live: TextIO | None = None,
    ) -> None:
        self._graph, self._data, self._folder = graph, data, folder
        self._live = live  # where it is shown how far they are
        self._session: Session | None = None
        self.reused = False  # whether some were there already, at no cost

    def features(
        self, split: Split, *, crops: int, smallest: float, seed: int
    ) -> Views:
        """float32 [V, N, D]: as it is, mirrored, and `crops` crops, half mirrored.

        With `crops` negative only the image as it is. Crops are cut from the whole
        photo, also where what is served is its middle (`whole_photo`).
        """
        path = self._folder / f"{self._key(split, crops, smallest, seed)}.npy"
        kept = read_features(path, images=len(split))
        if kept is not None:
            self.reused = True
            if self._live is not None:
                self._live.write(f"features of {len(split)} images from the cache\n")
            return kept
        found = self._compute(split, crops, smallest, seed)
        with durable(path) as file:  # zeros that are left of it would be features
            np.save(file, found, allow_pickle=False)
        return found

    def _compute(self, split: Split, crops: int, smallest: float, seed: int) -> Views:
        """All views of a piece, then the next, so that few pixels are held at once."""
        session = self._session = self._session or Session.load(self._graph)
        views = 1 if crops < 0 else 2 + crops
        found = np.empty((views, len(split), session.logits), np.float32)
        generators = cut_generators(len(split), crops, smallest, seed)
        bar = open_bar(self._live, views * len(split))
        bar.say(f"features of {views} x {len(split)} images")
        try:
            for part in in_pieces(np.arange(len(split)), size=BATCH):
                piece = split.samples.select(part)
                for v, pixels in enumerate(
                    self._views(piece, crops, smallest, generators)
                ):
                    found[v, part] = session.run(pixels)
                done = int(part[-1]) + 1
                bar.show(views * done, f"image {done} of {len(split)}")
        finally:
            bar.close()
        return found

    def _views(
        self, piece: Samples, crops: int, smallest: float, generators: list[Generator]
    ) -> Iterator[Pixels]:
        spec, whole = self._data.spec, whole_photo(self._data.spec)
        pixels = read_pixels(piece, spec)  # uint8 [N, H, W, C]
        yield pixels
        if crops >= 0:
            yield np.ascontiguousarray(pixels[:, :, ::-1])
        if crops > 0:
            yield from cuts(
                pixels if whole == spec else read_pixels(piece, whole),
                smallest,
                generators,
            )

    def _key(self, split: Split, crops: int, smallest: float, seed: int) -> str:
        parts = (
            hashlib.sha256(self._graph).hexdigest(),
            split.sha256(),
            self._data.spec.model_dump_json(),
            f"{crops} {smallest} {seed} whole mirrored",
        )
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:24]


def whole_photo(spec: PreprocessSpec) -> PreprocessSpec:
    """The same size, with as much of the photo in it as its shape allows."""
    if spec.resize != "crop":
        return spec  # it shows all of it already
    return spec.model_copy(update={"short_side": max(spec.height, spec.width)})


def cut_generators(
    count: int, crops: int, smallest: float, seed: int
) -> list[Generator]:
    """A generator for each of `crops` cuts of `count` images.

    Each begins where the one before it will be after all images, as if one generator
    had cut them all again and again. So pieces can have all of their cuts in turn.
    """
    generator, found = Generator().manual_seed(seed), []
    for _ in range(crops):
        found.append(Generator().set_state(generator.get_state()))
        for dots in in_pieces(np.zeros((count, 1, 1, 1), np.uint8), size=BATCH):
            _cropped(dots, smallest, generator)  # what is drawn depends on no pixel
    return found


def cuts(
    pixels: Pixels, smallest: float, generators: list[Generator]
) -> Iterator[Pixels]:
    """The piece, cut and mirrored at random by each generator; uint8 [N, H, W, C]."""
    for generator in generators:
        yield _cropped(pixels, smallest, generator)


def _cropped(pixels: Pixels, smallest: float, generator: Generator) -> Pixels:
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float()  # [N, C, H, W]
    cut = resized_crop(images, smallest=smallest, generator=generator)
    mirrored = torch.rand(len(cut), generator=generator) < 0.5  # noqa: PLR2004
    cut = torch.where(mirrored.view(-1, 1, 1, 1), cut.flip(3), cut)
    return cut.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
