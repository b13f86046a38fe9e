"""`load_weights`: what the field has published, and a clear word on all else."""

import pickle
from pathlib import Path

import pytest
import torch

from training.networks import CheckpointMismatchError, build, load_weights
from training.networks.weights import read_weights


def ones_like(state):
    """A checkpoint of the same names and shapes that is surely not the network's."""
    return {name: torch.ones_like(tensor) for name, tensor in state.items()}


@pytest.fixture
def resnet():
    """A small network of torchvision's names."""
    return build("resnet18_cifar", classes=10)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_checkpoint_comes_back_from_its_file(resnet, tmp_path, kind):
    """The file is read with weights_only, and every tensor arrives."""
    wanted = ones_like(resnet.state_dict())
    torch.save(wanted, tmp_path / "resnet.pt")

    load_weights(resnet, kind(tmp_path / "resnet.pt"))

    found = resnet.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "net"])
def test_wrapped_checkpoints_are_unwrapped(resnet, tmp_path, wrapper):
    """timm, torchvision's references and pytorch-cifar each wrap them differently."""
    wanted = ones_like(resnet.state_dict())
    torch.save({"epoch": 3, wrapper: wanted}, tmp_path / "wrapped.pt")

    load_weights(resnet, tmp_path / "wrapped.pt")

    assert torch.equal(resnet.fc.weight, torch.ones(10, 512))


def test_names_of_pytorch_cifar_are_understood(resnet):
    """There the head is `linear`, the projection `shortcut`, behind DataParallel."""
    theirs = {
        "module." + k.replace("downsample", "shortcut").replace("fc.", "linear."): v
        for k, v in ones_like(resnet.state_dict()).items()
    }

    load_weights(resnet, theirs)

    assert all(bool((t == 1).all()) for t in resnet.state_dict().values())


@pytest.mark.parametrize("wrapped", ["module._orig_mod.", "_orig_mod.module."])
def test_wrappers_may_be_around_one_another(resnet, wrapped):
    """A compiled network behind DataParallel, or one behind it that was compiled."""
    theirs = {wrapped + k: v for k, v in ones_like(resnet.state_dict()).items()}

    load_weights(resnet, theirs)

    assert torch.equal(resnet.fc.weight, torch.ones(10, 512))


def test_densenet_files_from_before_2018_are_understood():
    """They say `norm.1` for `norm1` and know no counters of batches."""
    network = build("densenet121", classes=1000)
    old = {
        name.replace(".norm1.", ".norm.1.")
        .replace(".conv1.", ".conv.1.")
        .replace(".norm2.", ".norm.2.")
        .replace(".conv2.", ".conv.2."): tensor
        for name, tensor in ones_like(network.state_dict()).items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old

    load_weights(network, old)

    assert all(bool((p == 1).all()) for p in network.parameters())


def test_a_head_that_is_a_pointwise_convolution_fits():
    """timm ends DPN in a 1x1 convolution, which is the same linear map."""
    network = build("dpn92", classes=3)
    state = ones_like(network.state_dict())
    state["classifier.weight"] = state["classifier.weight"][..., None, None]

    load_weights(network, state)

    assert torch.equal(network.head.weight, torch.ones(3, 2688))


def test_a_checkpoint_of_other_classes_gives_the_body_and_leaves_the_head(resnet):
    """Transfer: 1000 classes came in, 10 stay."""
    theirs = ones_like(build("resnet18_cifar", classes=1000).state_dict())
    before = resnet.fc.weight.clone()

    with pytest.raises(CheckpointMismatchError, match=r"fc.weight \[1000, 512\]"):
        load_weights(resnet, theirs)
    load_weights(resnet, theirs, keep_head=False)

    assert torch.equal(resnet.conv1.weight, torch.ones(64, 3, 3, 3))
    assert torch.equal(resnet.fc.weight, before)


def test_a_checkpoint_of_another_network_is_refused_and_changes_nothing(resnet):
    """The message counts what is missing, unknown and misshapen, with examples."""
    before = {name: t.clone() for name, t in resnet.state_dict().items()}
    theirs = build("resnet34_cifar", classes=10).state_dict()

    with pytest.raises(CheckpointMismatchError) as refusal:
        load_weights(resnet, theirs)

    assert "checkpoint of another network" in str(refusal.value)
    assert "96 are unknown to it: layer1.2.conv1.weight" in str(refusal.value)
    after = resnet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    """A pickle can hold any call; only plain tensors are let in."""

    trace = tmp_path / "the code ran"

    class Bomb:
        def __reduce__(self):
            return (open, (str(trace), "w"))

    (tmp_path / "bomb.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))

    with pytest.raises(CheckpointMismatchError, match=r"bomb\.pt"):
        read_weights(tmp_path / "bomb.pt")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_named(tmp_path, content):
    """Whatever the damage, one error says which file it was."""
    (tmp_path / "broken.pt").write_bytes(content)

    with pytest.raises(CheckpointMismatchError, match=r"broken\.pt"):
        read_weights(tmp_path / "broken.pt")


def test_a_tensor_that_is_not_as_it_was_written_is_named(resnet, tmp_path):
    """torch reads other numbers from it, without a word."""
    file = tmp_path / "flipped.pt"
    torch.save(resnet.state_dict(), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    with pytest.raises(CheckpointMismatchError, match=r"flipped\.pt is damaged \(mem"):
        read_weights(file)


def test_a_file_of_safetensors_is_told_how_to_become_a_checkpoint(resnet, tmp_path):
    """It is not damaged: it is of another format, of which torch knows nothing."""
    file = tmp_path / "resnet.safetensors"
    file.write_bytes(b"\x02\0\0\0\0\0\0\0{}")  # as the format has no tensors

    with pytest.raises(CheckpointMismatchError, match="safetensors is not read") as no:
        load_weights(resnet, str(file))

    assert "damaged" not in str(no.value)
    assert "torch.save(safetensors.torch.load_file(path)" in str(no.value)


def test_a_missing_file_is_named(tmp_path):
    """Not a traceback from deep inside torch."""
    with pytest.raises(CheckpointMismatchError, match=r"absent\.pt"):
        read_weights(tmp_path / "absent.pt")


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    """A list of numbers is plain, but no checkpoint."""
    torch.save({"epoch": 3, "accuracy": 0.9}, tmp_path / "log.pt")

    with pytest.raises(CheckpointMismatchError, match="no state dict"):
        read_weights(tmp_path / "log.pt")
