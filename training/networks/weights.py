"""checkpoint → **network with those weights**, or a clear word on what does not fit.

Takes the files that the field has published: plain state dicts and those wrapped in
`{"state_dict": …}`, `{"model": …}` or `{"net": …}`, of torchvision, timm (where the
names agree) and kuangliu/pytorch-cifar. Reading a file never runs code from it.
"""

import os
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.files import damaged_member
from training.networks.errors import CheckpointMismatchError
from training.networks.network import Network

WRAPPERS = ("state_dict", "model", "net", "model_state_dict")
# DenseNet files from before 2018 have `denselayer1.norm.1` for `denselayer1.norm1`.
OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")
# Dropped when all names start so, as often as they do: the wrappers of DataParallel
# and torch.compile, which may be around one another in either order.
PREFIXES = ("module.", "_orig_mod.")
SHOWN = 3  # examples in a message


def load_weights(
    network: Network,
    source: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    keep_head: bool = True,
) -> None:
    """Copy a checkpoint's tensors, or those of a file with one, into `network`.

    With `keep_head=False` the head's tensors are left out and the network keeps its
    own: what transfer to other classes needs.

    Raises:
        CheckpointMismatchError: the file is not a checkpoint, or one of another network
            (nothing has been copied then).
    """
    tensors = source if isinstance(source, Mapping) else read_weights(source)
    tensors = rename(tensors, network)
    wanted = dict(network.state_dict())
    if not keep_head:
        head = network.head_name + "."
        tensors = {k: v for k, v in tensors.items() if not k.startswith(head)}
        wanted = {k: v for k, v in wanted.items() if not k.startswith(head)}
    check_fit(tensors, wanted)
    # Files from before 2018 lack num_batches_tracked, which nothing here reads.
    network.load_state_dict(dict(tensors), strict=False)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, out of whatever dictionary wraps them.

    Raises:
        CheckpointMismatchError: missing, damaged, of the format safetensors, or not
            made of tensors only.
    """
    if Path(path).suffix.lower() == ".safetensors":
        raise CheckpointMismatchError(
            f"{path}: safetensors is not read; convert it with "
            "torch.save(safetensors.torch.load_file(path), 'weights.pth')"
        )
    damaged = None
    try:
        if zipfile.is_zipfile(path):  # files from before 2020 are not, and have no sums
            damaged = damaged_member(Path(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointMismatchError(f"cannot read {path}: {error}") from error
    except Exception as error:  # a border: on damage torch raises whatever it met
        raise CheckpointMismatchError(
            f"{path} is damaged, or more than a checkpoint of plain tensors "
            f"({type(error).__name__})"
        ) from error
    if damaged is not None:
        raise CheckpointMismatchError(f"{path} is damaged (member {damaged!r})")
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(
        isinstance(tensor, Tensor) for tensor in content.values()
    ):
        raise CheckpointMismatchError(
            f"{path} holds no state dict; expected one at the top "
            f"or under one of {', '.join(WRAPPERS)}"
        )
    return content


def _common_prefix(names: Collection[str]) -> str | None:
    """The wrapper's prefix that all names have, if there are any."""
    shared = (p for p in PREFIXES if names and all(n.startswith(p) for n in names))
    return next(shared, None)


def rename(tensors: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Names (and 1x1 heads) of other packages → those of `network`."""
    while prefix := _common_prefix(tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    wanted = network.state_dict()
    renamed = {}
    for name, tensor in tensors.items():
        ours = name
        if ours not in wanted:
            ours = OLD_DENSENET.sub(r"\1\2", ours)
            ours = ours.replace(".shortcut.", ".downsample.")
            if ours.startswith("linear."):
                ours = ours.replace("linear.", network.head_name + ".", 1)
        # timm's DPN ends in a 1x1 convolution
        pointwise = ours in wanted and tensor.shape == (*wanted[ours].shape, 1, 1)
        renamed[ours] = tensor.flatten(1) if pointwise else tensor
    return renamed


def check_fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Same names, same shapes; missing counters of batches are forgiven.

    Raises:
        CheckpointMismatchError: with counts and examples.
    """
    missing = [
        name
        for name in wanted
        if name not in tensors and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in tensors if name not in wanted]
    differing = [
        f"{name} {list(tensors[name].shape)} (network: {list(wanted[name].shape)})"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    complaints = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)}"
        for what, names in (
            ("tensors are missing", missing),
            ("are unknown to it", unknown),
            ("have another shape", differing),
        )
        if names
    ]
    if complaints:
        raise CheckpointMismatchError(
            "a checkpoint of another network: " + "; ".join(complaints)
        )
