"""What admission promises, kept under load: few 504s, and no 503 for nothing."""

import pytest

from service.engine.backlog import Backlog
from tests.service.engine.simulation import (
    MODEL,
    Arrival,
    Cost,
    Report,
    poisson,
    simulate,
)

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
        made.add_model(key, best_batch=BATCH, run_s=cost_s)
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


def burst_after_lone_images(
    cost: Cost, *, images: int, timeout_s: float, lanes: int = 16, best_batch: int = 1
) -> Report:
    """A minute in which each image has the machine for itself, then many at once."""
    line = Backlog(capacity=256, lanes=lanes)
    line.add_model(MODEL, best_batch=best_batch, run_s=cost.run_s)
    calm = [Arrival(n / 2) for n in range(120)]
    simulate(line, calm, {MODEL: cost}, lanes=lanes)

    burst = [Arrival(100.0, timeout_s=timeout_s) for _ in range(images)]
    return simulate(line, burst, {MODEL: cost}, lanes=lanes)


def test_lone_images_on_all_cores_do_not_teach_what_a_crowd_costs():
    """Of a burst as many are taken as one thread each can answer in time."""
    cost = Cost(run_s=0.04, lone_s=0.008)

    report = burst_after_lone_images(cost, images=256, timeout_s=0.5)

    in_time = 16 * int(0.5 / cost.run_s)
    assert report.answered[MODEL] > GOODPUT * in_time * 3 / 4
    assert report.expired + report.late == 0


def test_lone_images_of_a_gpu_do_not_teach_what_a_crowd_costs():
    """There one image alone takes more of a lane than one of a batch of 64."""
    cost = Cost(run_s=0.0002, lone_s=0.002)

    report = burst_after_lone_images(
        cost, images=256, timeout_s=0.05, lanes=3, best_batch=64
    )

    assert report.refused == []
    assert report.answered == {MODEL: 256}
    assert report.late == 0


def test_retry_after_is_true_after_lone_images():
    """Within a factor of two, when the load stops at the refusal."""
    cost = Cost(run_s=0.16, lone_s=0.03)

    report = burst_after_lone_images(cost, images=400, timeout_s=30.0)

    took_s = report.ended - 100.0
    assert min(report.refused) / took_s > 0.5
    assert max(report.refused) / took_s < 2


def test_lone_images_teach_what_decoding_costs():
    """Photos take longer than the golden image that was measured, in a crowd too."""
    cost = Cost(run_s=0.01, lone_s=0.005, decode_s=0.05)

    report = burst_after_lone_images(cost, images=256, timeout_s=0.5)

    in_time = 16 * int(0.5 / (cost.run_s + cost.decode_s))
    assert report.answered[MODEL] > GOODPUT * in_time * 3 / 4
    assert report.expired + report.late == 0


def test_a_crowd_that_was_too_dear_is_believed_again_with_one_lane():
    """Which runs all images alone while all but one are refused: nothing else would
    say that the machine is fast again."""
    cost = Cost(run_s=0.008, lone_s=0.005)
    line = Backlog(capacity=256, lanes=1)
    line.add_model(MODEL, best_batch=4, run_s=cost.run_s)
    slow = [Arrival(0.0) for _ in range(200)]
    simulate(line, slow, {MODEL: cost}, lanes=1, slowness=lambda _: 250.0)
    too_dear_s = line.cost_s(MODEL)

    def fours(begin_s: float) -> list[Arrival]:
        return [
            Arrival(begin_s + n / 25 + m / 1000, timeout_s=1.0)
            for n in range(500)
            for m in range(4)
        ]

    simulate(line, fours(1000.0), {MODEL: cost}, lanes=1)
    report = simulate(line, fours(2000.0), {MODEL: cost}, lanes=1)

    assert too_dear_s > 1.0
    assert report.refused == []


def test_decoding_ahead_breaks_no_promise_of_the_backlog():
    """What was promised begins when the pixels are there. Once a second a GPU gets 200
    images at a time, of which decoding has eaten half of the patience."""
    line = Backlog(capacity=256, lanes=3)
    line.add_model(MODEL, best_batch=64, run_s=0.0003)
    arrivals = [
        Arrival(second, timeout_s=0.13, ahead_s=0.07)
        for second in range(1, 11)
        for _ in range(200)
    ]

    report = simulate(line, arrivals, {MODEL: 0.0002}, lanes=3)

    assert report.refused == []
    assert report.answered == {MODEL: 2000}
    assert report.late == 0
