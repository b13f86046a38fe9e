"""What admission promises, kept under load: few 504s, and no 503 for nothing."""

import pytest

from service.engine.backlog import Backlog
from tests.service.engine.simulation import Report, poisson, simulate

CHEAP, DEAR = ("cheap", 1), ("dear", 1)
COSTS = {CHEAP: 0.001, DEAR: 0.25}  # seconds of a lane an image
BATCH = 4  # so a run of the dear model takes a second
LANES = 2
SECONDS = 60
# Of those who could be answered in time. The rest is the price of a promise: who could
# be late if others came meanwhile is refused.
GOODPUT = 0.85


def two_models() -> Backlog:
    """A backlog for a cheap model and a dear one."""
    made = Backlog(capacity=2000, lanes=LANES)
    for key, cost_s in COSTS.items():
        made.add_model(key, best_batch=BATCH, cost_s=cost_s)
    return made


def beside_a_dear_model(timeout_s: float | None) -> Report:
    """Images for a cheap model, while a dear one takes three quarters of the time."""
    arrivals = list(poisson(100, SECONDS, model=CHEAP, timeout_s=timeout_s))
    arrivals += poisson(1.5, SECONDS, seed=1, model=DEAR, images=BATCH)
    return simulate(two_models(), arrivals, COSTS, lanes=LANES)


@pytest.mark.parametrize("timeout_s", [0.3, 0.5, 1.0])
def test_what_lanes_are_at_is_priced_by_the_model_that_they_run(timeout_s):
    """All may run a dear model for longer than an image of a cheap one may wait: it is
    refused at once then, and taken if one of them will be free in time."""
    patient = beside_a_dear_model(None).waits["single"]

    report = beside_a_dear_model(timeout_s)

    in_time = sum(wait <= timeout_s for wait in patient)
    assert report.answered[CHEAP] > GOODPUT * in_time
    # who finds the line empty is taken whatever is predicted: one for each run
    assert report.expired + report.late < report.answered[DEAR] / BATCH
