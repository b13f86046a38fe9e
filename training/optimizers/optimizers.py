"""network + config → **optimizers**: each parameter in the hands of exactly one.

Different layers learn best in different ways: Muon suits filters, while the biases of a
batch norm take plain SGD with a far larger rate. A config lists optimizers with the
parameters that each takes; the first that fits a parameter gets it.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from training.configs.sections import OptimizerConfig, ScheduleConfig
from training.errors import ConfigError
from training.optimizers import schedule
from training.optimizers.muon import FILTER_AXES, Muon

AXES = {"filters": (4,), "matrices": (2,), "vectors": (0, 1), "all": (0, 1, 2, 3, 4)}


class Optimizers:
    """Several optimizers that step together under one schedule."""

    def __init__(
        self,
        network: nn.Module,
        configs: tuple[OptimizerConfig, ...],
        shape: ScheduleConfig,
        *,
        freezes: bool = True,
    ) -> None:
        """`freezes` False: what a config freezes keeps computing its gradient.

        Distributed training needs that, for it waits for the gradient of every
        parameter that it has seen at the start. `step` forgets what has come.
        """
        self._shape, self._freezes = shape, freezes
        self._frozen: list[Tensor] = []  # since the end of their part of the training
        self._configs = []
        self._optimizers: list[Optimizer] = []
        for config, parameters in _assign(network, configs):
            if config.kind == "frozen":
                for parameter, _ in parameters:
                    parameter.requires_grad_(False)
                continue
            self._configs.append(config)
            self._optimizers.append(_build(config, parameters))

    def schedule(self, progress: float, *, multiple: float = 1.0) -> None:
        """Set all learning rates for this point of the training.

        `multiple` goes over all of them: it is what a search for a good rate varies.
        """
        factor = schedule.factor(
            progress,
            shape=self._shape.shape,
            warmup=self._shape.warmup,
            start=self._shape.start,
            final=self._shape.final,
        )
        self._frozen.clear()
        for config, optimizer in zip(self._configs, self._optimizers, strict=True):
            own = (
                factor
                if config.until is None
                else schedule.until(progress, end=config.until)
            )
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * own * multiple
                if own == 0 and config.until is not None:
                    self._frozen += group["params"]
        if self._freezes:
            for parameter in self._frozen:
                parameter.requires_grad_(False)

    def step(self, *, clip_norm: float | None = None) -> None:
        """Update the parameters from their gradients.

        All gradients together are scaled down to the norm `clip_norm` if they are
        longer (Pascanu et al., arXiv:1211.5063).
        """
        for parameter in self._frozen:
            parameter.grad = None  # it would count as a part of the norm
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), clip_norm)
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients.

        Each optimizer could, but asks a profiler first, for a hundredth of a small
        step.
        """
        for parameter in self.parameters():
            parameter.grad = None

    def parameters(self) -> list[Tensor]:
        """All parameters under an optimizer."""
        return [
            parameter
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]

    def state_dict(self) -> list[dict[str, Any]]:
        """Momenta and averages, an entry an optimizer."""
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from `state_dict`."""
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)
            for group in optimizer.param_groups:
                if not group.get("fused"):
                    for parameter in group["params"]:
                        keep_count_here(optimizer.state[parameter])


def keep_count_here(state: dict[str, Any]) -> None:
    """AdamW counts its steps on the CPU, but a checkpoint is read onto the device.

    From there it would fetch the count of each parameter in each step, and wait.
    """
    if isinstance(state.get("step"), Tensor):
        state["step"] = state["step"].cpu()


def _assign(
    network: nn.Module, configs: tuple[OptimizerConfig, ...]
) -> Iterable[tuple[OptimizerConfig, list[tuple[Tensor, int]]]]:
    """Each config with its parameters and the groups of their convolutions."""
    groups = {
        f"{name}.weight": module.groups
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    taken: list[list[tuple[Tensor, int]]] = [[] for _ in configs]
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        for config, own in zip(configs, taken, strict=True):
            if _fits(config.parameters, name, parameter):
                own.append((parameter, groups.get(name, 1)))
                break
        else:
            raise ConfigError(f"no [[optimizer]] takes the parameter {name}")
    for config, own in zip(configs, taken, strict=True):
        if not own:
            raise ConfigError(
                f"[[optimizer]] with parameters = {config.parameters!r} takes none: "
                "no parameter fits, or those before it took them all"
            )
        yield config, own


def _fits(wanted: str, name: str, parameter: Tensor) -> bool:
    if wanted in AXES:
        return parameter.ndim in AXES[wanted]
    try:
        return re.fullmatch(wanted, name) is not None
    except re.error as error:
        raise ConfigError(
            f"parameters = {wanted!r} is none of {', '.join(AXES)}, and as a regular "
            f"expression: {error}"
        ) from error


def _build(config: OptimizerConfig, parameters: list[tuple[Tensor, int]]) -> Optimizer:
    tensors = [parameter for parameter, _ in parameters]
    rate, decay = config.learning_rate, config.weight_decay
    # Otherwise a CPU makes four calls for each parameter; small networks notice.
    fused = all(tensor.device.type == "cpu" for tensor in tensors) or None
    match config.kind:
        case "sgd":
            return SGD(
                tensors,
                lr=rate,
                momentum=config.momentum,
                weight_decay=decay,
                nesterov=config.momentum > 0,
                fused=fused,
            )
        case "adamw":
            return AdamW(
                tensors, lr=rate, betas=config.betas, weight_decay=decay, fused=fused
            )
    flat = [p for p in tensors if p.ndim < 2]  # noqa: PLR2004 - a vector has no U V^T
    if flat:
        raise ConfigError(
            "muon takes filters and matrices; give vectors to sgd or adamw"
        )
    if decay and any(p.ndim == FILTER_AXES for p in tensors):
        raise ConfigError(
            f"weight_decay is {decay}; muon scales filters to a fixed norm at each "
            "step, which undoes it: leave it out, or give filters to sgd or adamw"
        )
    of_groups: dict[int, list[Tensor]] = {}
    for parameter, groups in parameters:
        of_groups.setdefault(groups, []).append(parameter)
    blocks = [{"params": own, "groups": groups} for groups, own in of_groups.items()]
    return Muon(blocks, lr=rate, momentum=config.momentum, weight_decay=decay)
