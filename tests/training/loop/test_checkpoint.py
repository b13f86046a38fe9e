"""A checkpoint is whole or not there, runs no code, and fits its network only."""

import math
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.disks import full_above
from tests.training.loop.runs import write_config
from training.configs.config import read_config
from training.errors import CheckpointError, DivergedError
from training.loop.budget import Plan
from training.loop.checkpoint import load_network, read_checkpoint, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.start import build_optimizers
from training.loop.state import State
from training.networks import build

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_what_is_written_is_read(tmp_path):
    """Tensors, numbers and nested containers."""
    state = {"step": 3, "network": {"w": torch.arange(6.0).view(2, 3)}, "best": None}
    write_checkpoint(tmp_path / "a.pt", state)
    read = read_checkpoint(tmp_path / "a.pt")

    assert read["step"] == 3
    assert torch.equal(read["network"]["w"], state["network"]["w"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_run_goes_on_from_all_that_it_knew(tmp_path):
    """Its patience, its best score, and the weights that had it."""
    write_config(tmp_path)
    config = read_config(tmp_path / "tiny.toml")

    def begun(**known) -> State:
        network = build("lenet5", classes=10)
        optimizers = build_optimizers(network, config, ALONE)
        return State(config, network, optimizers, Plan(100, 25, "fp32", {}), **known)

    known = {"step": 30, "seconds": 4.5, "looks_without_gain": 2}
    known |= {"best": 0.75, "best_loss": 0.4}
    begun(best_weights={"w": torch.ones(2)}, **known).write(tmp_path / "a.pt")
    again = begun()
    again.restore(read_checkpoint(tmp_path / "a.pt"), tmp_path / "a.pt")

    assert {name: getattr(again, name) for name in known} == known
    saved = read_checkpoint(tmp_path / "a.pt")
    saved["epochs_without_gain"] = saved.pop("looks_without_gain") + 1  # its old name
    older = begun()
    older.restore(saved, tmp_path / "a.pt")
    assert older.looks_without_gain == 3
    assert torch.equal(again.best_weights["w"], torch.ones(2))
    assert again.progress == 0.3


def test_weights_that_are_no_numbers_leave_the_checkpoint_before_them(tmp_path):
    """Of several processes only one may have seen the loss that made them so."""
    write_config(tmp_path)
    config = read_config(tmp_path / "tiny.toml")
    network = build("lenet5", classes=10)
    optimizers = build_optimizers(network, config, ALONE)
    state = State(config, network, optimizers, Plan(100, 25, "fp32", {}), step=7)
    state.write(tmp_path / "a.pt")
    with torch.no_grad():
        next(network.parameters()).view(-1)[3] = math.nan

    state.step = 8
    with pytest.raises(DivergedError, match="no numbers by step 8 of 100; the check"):
        state.write(tmp_path / "a.pt")

    assert read_checkpoint(tmp_path / "a.pt")["step"] == 7


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    """Played by a limit on the size of files, which the system enforces."""
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"step": 1})
    with (
        full_above(50_000),
        pytest.raises(CheckpointError, match="the checkpoint before it is untouch"),
    ):
        write_checkpoint(path, {"step": 2, "large": torch.zeros(100_000)})

    assert read_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_a_clear_error(tmp_path, content):
    """It names the file."""
    path = tmp_path / "a.pt"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_checkpoint(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_torch_does_not_write_is_not_unpacked(tmp_path, method):
    """Comparing the checksum of 1 KB of bzip2 took 3 GB."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", method) as target:
        target.writestr("a/data.pkl", b"")

    with pytest.raises(CheckpointError, match=r"damaged \(member 'a/data.pkl'\)"):
        read_checkpoint(path)


def test_no_damage_is_taken_for_a_checkpoint(tmp_path):
    """A bit that turns is found by the checksums, or is of nothing that is read."""
    path, rng = tmp_path / "a.pt", np.random.default_rng(0)
    weights = torch.randn(400, generator=torch.Generator().manual_seed(0))
    write_checkpoint(path, {"step": 3, "network": {"w": weights}})
    whole, refusals = path.read_bytes(), []
    for place in rng.integers(0, len(whole), 200):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(0, 8)
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path)
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            assert read["step"] == 3
            assert torch.equal(read["network"]["w"], weights)

    assert len(refusals) > 100
    assert all(str(path) in words for words in refusals)
    assert not any("weights_only" in words for words in refusals)


def test_damage_is_named_with_the_way_out(tmp_path):
    """The member of the file, and that a copy or a new start helps."""
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"network": {"w": torch.ones(400)}})
    ones = torch.ones(400).numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(ones, ones[:-1] + b"\x00"))

    named = r"damaged \(member '.*data/0'\); put back a copy of it, or remove it"
    with pytest.raises(CheckpointError, match=named):
        read_checkpoint(path)


def test_a_member_that_became_a_folder_is_damage(tmp_path):
    """A single bit, which no checksum covers; the weights would be whatever was there.

    The attributes lie 38 bytes into an entry of the directory, the name 46.
    """
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"network": {"w": torch.ones(400)}})
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"/data/0"))
    content[entry + 38] |= 0x10
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"damaged \(member '.*data/0'\)"):
        read_checkpoint(path)


def test_a_file_without_its_beginning_is_damaged(tmp_path):
    """The system's words alone would be "Invalid argument"."""
    path = tmp_path / "a.pt"
    write_checkpoint(path, {"network": {"w": torch.ones(400)}})
    path.write_bytes(path.read_bytes()[1000:])

    with pytest.raises(CheckpointError, match=r"a\.pt is damaged.*; put back a copy"):
        read_checkpoint(path)


def test_a_zip_file_of_something_else_is_a_clear_error(tmp_path):
    """Its checksums are right, and torch finds nothing of its own in it."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("a.txt", "text")

    with pytest.raises(CheckpointError, match=r"cannot read checkpoint .*a\.pt"):
        read_checkpoint(path)


class Attack:
    """Unpickled, it would call `print`."""

    def __reduce__(self):
        return print, ("pwned",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    """Both in torch's zip format and as a bare pickle."""
    torch.save({"format": 1, "network": Attack()}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Attack()))

    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert "pwned" not in capsys.readouterr().out


def test_a_file_of_another_program_is_refused(tmp_path):
    """A bare state dict is not a run that could go on."""
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "a.pt")

    with pytest.raises(CheckpointError, match="no checkpoint of this program"):
        read_checkpoint(tmp_path / "a.pt")


def test_weights_of_another_network_are_refused_by_name():
    """Missing, unknown and misshapen tensors are told apart."""
    weights = {"weight": torch.zeros(3, 2), "extra": torch.zeros(1)}

    with pytest.raises(CheckpointError) as caught:
        load_network(nn.Linear(2, 4), weights, "a.pt")

    message = str(caught.value)
    assert "a.pt is of another network" in message
    assert "bias is missing there" in message
    assert "extra is unknown here" in message
    assert "weight is (3, 2) there, (4, 2) here" in message
