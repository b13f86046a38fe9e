"""The tickets of one model: who is ahead of whom, and what is learned of their cost."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.engine.line import (
    COST_WEIGHT,
    FORGOTTEN_S,
    LONGER_WEIGHT,
    MAX_STRETCH,
    MAX_SURPRISE,
    TELLING_WAIT,
    Line,
)
from service.engine.ticket import Ticket
from tests.service.engine.simulation import MODEL

COST_S = 0.008


def line(*, run_s: float = COST_S, decode_s: float = 0.0) -> Line:
    """A line whose images cost what was measured."""
    return Line(1, 1, run_s, run_s, decode_s, 1)


def ticket(request: object | None = None) -> Ticket:
    """One image."""
    return Ticket(MODEL, b"", 0.0, None, request)


def add(line: Line, images: int) -> Ticket:
    """Let a request come; its last image."""
    tickets = [ticket() for _ in range(images)]
    if images == 1:
        line.singles.extend(tickets)
    else:
        line.requests.append(type(line.requests)(tickets))
        line.batch_items += images
    return tickets[-1]


def pops_before(line: Line, last: Ticket) -> int:
    """How many images are taken before that one."""
    count = 0
    while line.pop() is not last:
        count += 1
    return count


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([1, 1, 1, 2, 5]), max_size=30),
    st.integers(0, 8),
    st.integers(1, 9),
)
@example([1, 1, 1, 2], 3, 1)  # it is just the turn of a batch item
@example([*[1] * 20, 5], 0, 2)  # singles between the items of both
def test_no_more_images_go_ahead_than_was_said(waiting, taken, images):
    """Of a single image it is exact but for one turn, whoever had the turns before."""
    whole = line()
    for each in waiting:
        add(whole, each)
    for _ in range(min(taken, len(whole))):
        whole.pop()
    if images == 1:
        said = whole.ahead_of_single()
    else:
        said = whole.ahead_of_batch(images) + images - 1

    ahead = pops_before(whole, add(whole, images))

    assert ahead <= said
    assert images > 1 or said <= ahead + 1


def test_a_batch_costs_at_most_some_times_what_was_known():
    """A machine that was frozen for a minute says nothing of the next image."""
    whole = line(run_s=COST_S / 2, decode_s=COST_S / 2)

    whole.learn_cost(decode_s=60.0, run_s=60.0)

    most_s = COST_S / 2 + COST_WEIGHT * (MAX_SURPRISE * COST_S - COST_S / 2)
    assert whole.decode_s == whole.run_s == pytest.approx(most_s)
    assert whole.cost_s == whole.decode_s + whole.run_s


def test_runs_of_lone_images_lead_a_cost_back_to_what_was_measured():
    """Too dear a crowd would be refused, and then nothing would say what one costs."""
    whole = line()
    for _ in range(100):
        whole.learn_cost(decode_s=0.0, run_s=10 * COST_S)
    for _ in range(100):
        whole.learn_cost(decode_s=0.0, run_s=None)

    assert whole.cost_s == pytest.approx(COST_S, rel=0.01)


def waited(line: Line, promised_s: float, took_s: float) -> float:
    """What a ticket that was promised one wait and had another teaches at once."""
    late = ticket()
    late.promised_s = promised_s
    line.learn_wait(late, took_s)
    return line.stretch(took_s)


def test_a_wait_longer_than_promised_is_believed_and_slowly_forgotten():
    """Half of it at once, and half of that after half a minute."""
    whole = line()
    promised_s = TELLING_WAIT * COST_S

    assert waited(whole, promised_s, 2 * promised_s) == 1 + LONGER_WEIGHT
    later = whole.stretch(2 * promised_s + FORGOTTEN_S)
    assert later == pytest.approx(1 + LONGER_WEIGHT / 2)


def test_no_wait_is_believed_beyond_all_measure():
    """After a freeze nobody would be let in."""
    promised_s = TELLING_WAIT * COST_S

    most = 1 + LONGER_WEIGHT * (MAX_STRETCH - 1)
    assert waited(line(), promised_s, 1000 * promised_s) == most


def test_a_wait_of_a_few_images_says_nothing():
    """It is made of chance: who came just before, and how the last run went."""
    promised_s = TELLING_WAIT * COST_S * 0.99

    assert waited(line(), promised_s, 2 * promised_s) == 1
