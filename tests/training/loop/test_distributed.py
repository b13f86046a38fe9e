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


def test_auto_and_cpu_are_always_there():
    """Alone, it is the first of one."""
    with start_ranks("auto") as ranks:
        assert (ranks.first, ranks.world) == (True, 1)
    with start_ranks("cpu") as ranks:
        assert ranks.device == torch.device("cpu")
