"""Ranks begin on a device that is there, or with a line that says which ones are."""

import pytest
import torch

from training.errors import ConfigError
from training.loop.distributed import start_ranks


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "CPU", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    """Torch's own exception lists twenty kinds of devices, none of which is meant."""
    with (
        pytest.raises(ConfigError, match=f"device is '{device}'.* are auto, cpu"),
        start_ranks(device),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    """Before the data is read."""
    with pytest.raises(ConfigError, match="finds 0 CUDA"), start_ranks("cuda"):
        pass


@pytest.fixture
def two_gpus(monkeypatch):
    """Torch believes in two GPUs; the list of those that were made the current one."""
    current = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", current.append)
    return current


def test_a_gpu_that_was_chosen_is_the_current_one(two_gpus):
    """Random numbers and pinned memory go to that one: another may be full."""
    with start_ranks("cuda:1") as ranks:
        assert ranks.device == torch.device("cuda:1")

    assert two_gpus == [torch.device("cuda:1")]


@pytest.mark.parametrize(
    ("device", "rank", "message"),
    [
        ("cuda:1", "0", "device is 'cuda:1', and torchrun .* say cuda"),
        ("cuda", "2", r"process 3 .* finds 2 .*--nproc-per-node may be 2 at most"),
    ],
)
def test_each_process_takes_a_gpu_of_its_own(
    two_gpus, monkeypatch, device, rank, message
):
    """Not all the same one, nor one that is not there."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", rank)

    with pytest.raises(ConfigError, match=message), start_ranks(device):
        pass

    assert two_gpus == []


def test_auto_and_cpu_are_always_there():
    """Alone, it is the first of one."""
    with start_ranks("auto") as ranks:
        assert (ranks.first, ranks.world) == (True, 1)
    with start_ranks("cpu") as ranks:
        assert ranks.device == torch.device("cpu")
