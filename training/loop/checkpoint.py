"""training state ↔ **checkpoint**: one file, whole or not at all, that runs no code.

Written to a temporary file beside its place, flushed to the disk, then renamed: a kill
or a full disk leaves the checkpoint before it untouched. Read by its checksums, which
torch does not compare, and with `torch.load(weights_only=True)`, which builds tensors
and plain containers only.
"""

import logging
import os
import pickle
import warnings
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from training.errors import CheckpointError, DiskError
from training.files import damaged_member, durable

LOGGER = logging.getLogger(__name__)

FORMAT = 1
STATE = "optimizers"  # a key of each `last.pt`, and of no `final.pt`
WAY_OUT = "put back a copy of it, or remove it and start `linnaeus train` again"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) to `path` atomically.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written; what was at
            `path` before is still there.
    """
    try:
        with durable(path) as file:
            _save({"format": FORMAT, **state}, file)
    except DiskError as error:
        raise CheckpointError(
            f"{error}; the checkpoint before it is untouched"
        ) from error
    _sync_folder(path.parent)


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # how torch's zip writer reports a short write
        raise OSError(f"torch could not write: {error}") from error


def read_checkpoint(path: Path, *, device: str = "cpu") -> dict[str, Any]:
    """Read what `write_checkpoint` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or not one of ours.
    """
    _check_whole(path)
    try:
        with warnings.catch_warnings():  # about pickle protocols that we never write
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:  # torch's words advise to run that code
        raise CheckpointError(
            f"{path} holds more than tensors and plain values; it could run code, and "
            "is not read"
        ) from error
    except Exception as error:  # whatever a foreign zip file makes of torch's reader
        raise CheckpointError(
            f"cannot read checkpoint {path} ({type(error).__name__}); {WAY_OUT}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no checkpoint of this program (format {FORMAT}); weights of "
            "other programs are loaded by `training.networks.load_weights`"
        )
    return state


def read_state(path: Path, *, device: str = "cpu") -> dict[str, Any]:
    """Read a `last.pt`, from which a run goes on.

    Raises:
        CheckpointError: as `read_checkpoint`; or it is that of a finished run.
    """
    saved = read_checkpoint(path, device=device)
    if STATE not in saved:
        raise CheckpointError(
            f"{path} is what a finished run leaves as final.pt, and nothing to go on "
            "from; move it there, or remove it to begin anew"
        )
    return saved


def read_finished(path: Path) -> dict[str, Any]:
    """Read a `final.pt`, which a finished run leaves.

    Raises:
        CheckpointError: as `read_checkpoint`; or it is one to go on from.
    """
    saved = read_checkpoint(path)
    if STATE in saved:
        raise CheckpointError(
            f"{path} is a checkpoint to go on from, and not that of a finished run; "
            "call it last.pt and start `linnaeus train` again, which writes final.pt"
        )
    return saved


def read_if_whole(path: Path) -> dict[str, Any] | None:
    """A `final.pt`; None where there is none, or (with a warning) no readable one."""
    if not path.is_file():
        return None
    try:
        return read_finished(path)
    except CheckpointError as error:
        LOGGER.warning("taken as absent: %s", error)
        return None


def load_network(network: nn.Module, weights: dict[str, Any], where: str) -> None:
    """Put a checkpoint's weights into a network that must be the same one.

    Raises:
        CheckpointError: naming the first tensors that do not fit.
    """
    own = network.state_dict()
    missing = sorted(set(own) - set(weights))
    unknown = sorted(set(weights) - set(own))
    shapes = [
        f"{name} is {tuple(weights[name].shape)} there, {tuple(own[name].shape)} here"
        for name in sorted(set(own) & set(weights))
        if weights[name].shape != own[name].shape
    ]
    problems = [
        *(f"{name} is missing there" for name in missing[:3]),
        *(f"{name} is unknown here" for name in unknown[:3]),
        *shapes[:3],
    ]
    if problems:
        raise CheckpointError(f"{where} is of another network: {'; '.join(problems)}")
    network.load_state_dict(weights)


def _check_whole(path: Path) -> None:
    """Compare the checksum of every member of the file, which is a zip file."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    try:
        damaged = damaged_member(path)
    except Exception as error:  # what damage makes of a zip file is of many classes
        found = str(error) or type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint ({found}); {WAY_OUT}"
        ) from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (member {damaged!r}); {WAY_OUT}")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every system can open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
