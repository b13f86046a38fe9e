"""batch → **its hardest images**, found by a small network that learns beside.

Soon most images of a data set are told with ease, and their gradients say nothing new.
So a step looks at more images than it learns from: a proxy, which costs a few percent
of the network, sees all of them, and those with the highest loss go on. It learns from
the same ones, so that what is hard for it stays what is hard for the network.

Choosing with a proxy: Coleman et al., arXiv:1906.11829; by the loss, batch by batch:
Jiang et al., arXiv:1910.00762; for CIFAR-10: Jordan, airbench96_faster.py, 2024.
"""

from typing import Any

import torch
from torch import Tensor, nn

from training.loop.arithmetic import Precision, autocast
from training.objectives.objective import Objective
from training.optimizers.optimizers import Optimizers


class Selection:
    """Chooses the images of each step, and learns from them."""

    def __init__(
        self,
        proxy: nn.Module,
        trained: nn.Module,
        optimizers: Optimizers,
        objective: Objective,
        *,
        keep: float,
        clip_norm: float | None = None,
    ) -> None:
        """`trained` is the proxy as it is called: compiled, or averaging gradients.

        `clip_norm` is the norm of its longest gradient.
        """
        self._proxy, self._trained, self._optimizers = proxy, trained, optimizers
        self._objective, self._keep, self._clip_norm = objective, keep, clip_norm
        # Of all steps so far, to be looked at with that of the network: a proxy whose
        # losses are no numbers chooses by place, and no other figure would tell.
        self.total_loss = torch.zeros((), device=next(proxy.parameters()).device)

    def hardest(
        self,
        images: Tensor,
        truth: Tensor,
        *,
        progress: float,
        precision: Precision,
        multiple: float = 1.0,
    ) -> Tensor:
        """Indices of those to learn from, in order; the proxy takes its own step.

        Args:
            images: float [N, C, H, W], augmented.
            truth: of each, as `Objective.truth` gives it.
        """
        with torch.no_grad(), autocast(images.device, precision):
            logits = self._proxy(images)  # [N, K]
        losses = self._objective.losses(logits.float(), truth)  # [N]
        count = max(1, round(len(images) * self._keep))
        chosen = losses.topk(count).indices.sort().values
        self._optimizers.schedule(progress, multiple=multiple)
        with autocast(images.device, precision):
            logits = self._trained(images[chosen])
        self._optimizers.zero_grad()
        loss = self._objective.loss(logits.float(), truth[chosen])
        loss.backward()
        self._optimizers.step(clip_norm=self._clip_norm)
        self.total_loss += loss.detach()
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "proxy": self._proxy.state_dict(),
            "optimizers": self._optimizers.state_dict(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._proxy.load_state_dict(saved["proxy"])
        self._optimizers.load_state_dict(saved["optimizers"])
