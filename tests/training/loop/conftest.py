"""What the tests of the loop share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def same_sums() -> Iterator[None]:
    """One thread: the same sums in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
