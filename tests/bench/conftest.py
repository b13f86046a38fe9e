"""What measurements need of the machine that tests them."""

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def signals_of_a_terminal() -> Iterator[None]:
    """None is ignored: nohup and shells in the background hand that on to children."""
    wanted = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGTERM: signal.SIG_DFL,
    }
    before = {each: signal.signal(each, handler) for each, handler in wanted.items()}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
