"""network + split → **logits**: forward passes without augmentation, in pieces.

For watching a run. The figures that are reported come from the exported graph, through
`classifier/`.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from training.configs.sections import DataConfig
from training.data.dataset import Split, read_pixels
from training.data.pieces import images_at_once
from training.loop.arithmetic import Precision, autocast, normalize, to_images
from training.networks.modes import evaluating
from training.objectives.objective import Objective, Scores


class Validation:
    """A split that is looked at again and again; its pixels stay if they fit."""

    def __init__(
        self, split: Split, config: DataConfig, objective: Objective, *, batch_size: int
    ) -> None:
        """`batch_size` is that of a rank of the training."""
        self._split, self._config, self._objective = split, config, objective
        self._at_once = images_at_once(config.spec, batch_size=batch_size)
        mib = len(split) * int(np.prod(config.spec.shape)) / (1 << 20)
        self.resident = mib <= config.resident_mib
        self._pixels = split.pixels(config.spec) if self.resident else None

    def __len__(self) -> int:
        return len(self._split)

    def scores(self, network: nn.Module, precision: Precision) -> Scores:
        """Loss and scores of the network as it is."""
        logits = self.logits(network, precision)
        labels = torch.tensor(self._split.labels)
        return self._objective.watched(logits, labels)

    def logits(
        self, network: nn.Module, precision: Precision, *, mirrored: bool = False
    ) -> Tensor:
        """float32 [N, K], on the CPU. Each layer is left in the mode that it was in."""
        device = next(network.parameters()).device
        found = []
        with evaluating(network), torch.no_grad(), autocast(device, precision):
            for chunk in self._chunks():
                images = to_images(torch.tensor(chunk, device=device))
                images = images.flip(-1) if mirrored else images
                images = normalize(images, self._config.mean, self._config.std)
                found.append(network(images).float().cpu())
        return torch.cat(found)

    def _chunks(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self._split), self._at_once):
            stop = min(start + self._at_once, len(self._split))
            if self._pixels is not None:
                yield self._pixels[start:stop]
            else:
                piece = self._split.samples.select(np.arange(start, stop))
                yield read_pixels(piece, self._config.spec)
