"""The batching policy, on a virtual clock."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine import backlog as policy
from service.engine import line as order
from service.engine.backlog import SAFETY, Backlog, Cut
from service.engine.line import SINGLES_EXPECTED_S, SINGLES_PER_BATCH_ITEM
from service.engine.ticket import Ticket
from service.errors import OverloadedError
from tests.lines import lines_executed
from tests.service.engine.simulation import MODEL, Arrival, poisson, simulate

COST_S = 0.008
LANES = 2
CAPACITY_PER_S = LANES / COST_S
BROKEN_PROMISES = 0.01  # of the answers, where nothing could have been known


def backlog(
    *,
    capacity: int = 256,
    best_batch: int = 1,
    lanes: int = LANES,
    abreast: int | None = None,
) -> Backlog:
    """A backlog with one model."""
    made = Backlog(capacity=capacity, lanes=lanes)
    made.add_model(MODEL, best_batch=best_batch, run_s=COST_S, abreast=abreast)
    return made


def ticket(*, deadline: float | None = None, request: object | None = None) -> Ticket:
    """One image that arrived at 0."""
    return Ticket(MODEL, b"", 0.0, deadline, request)


def test_a_lone_image_is_cut_at_once():
    """No window is waited for while a lane is free."""
    line = backlog(best_batch=8)
    alone = ticket()
    line.offer([alone], 0.0)

    cut = line.take(0.0)

    assert cut is not None
    assert cut.batch == [alone]


def test_a_batch_grows_until_a_lane_is_free_and_no_further_than_the_best_size():
    """What arrives while the lanes are busy runs together."""
    line = backlog(best_batch=4, lanes=1)
    for _ in range(6):
        line.offer([ticket()], 0.0)

    sizes = [len(cut.batch) for cut in iter(lambda: line.take(0.0), None)]

    assert sizes == [4, 2]


@pytest.mark.parametrize(
    ("lanes", "abreast", "images", "sizes"),
    [
        (16, None, 8, [1] * 8),
        (16, None, 16, [1] * 16),
        (16, None, 40, [3] * 8 + [2] * 8),
        (2, None, 6, [3, 3]),
        (2, None, 100, [8] * 12 + [4]),  # the lanes are busy from the third on
        (3, 1, 8, [8]),  # on one device runs would wait for each other
        (8, 2, 8, [4, 4]),  # lanes beyond the cores would share the same cores
    ],
)
def test_free_lanes_share_what_waits(lanes, abreast, images, sizes):
    """None is idle while another runs a batch; a crowd has full batches."""
    line = backlog(best_batch=8, lanes=lanes, abreast=abreast)
    for _ in range(images):
        line.offer([ticket()], 0.0)

    assert [len(cut.batch) for cut in iter(lambda: line.take(0.0), None)] == sizes


def test_a_lane_takes_its_part_by_time_where_models_differ():
    """By their number alone, four dear images beside 100 cheap ones were one part."""
    cheap, dear = ("cheap", 1), ("dear", 1)
    shared = Backlog(capacity=1000, lanes=4)
    shared.add_model(dear, best_batch=8, run_s=0.05)
    shared.add_model(cheap, best_batch=8, run_s=0.001)
    for key, images in ((dear, 4), (cheap, 100)):
        for _ in range(images):
            shared.offer([Ticket(key, b"", 0.0, None)], 0.0)

    cut = shared.take(0.0)

    assert [each.model for each in cut.batch] == [dear] * 2


def test_a_crowd_that_all_lanes_can_serve_at_once_waits_for_one_run():
    """As many images as lanes come together, again and again."""
    arrivals = [Arrival(float(second)) for second in range(20) for _ in range(16)]

    report = simulate(
        backlog(best_batch=8, lanes=16), arrivals, {MODEL: COST_S}, lanes=16
    )

    assert max(report.waits["single"]) == pytest.approx(COST_S)


@pytest.mark.parametrize("abreast", [4, 1])
def test_a_flood_has_full_batches(abreast):
    """Lanes that are never idle have nothing to share."""
    line = Backlog(capacity=1000, lanes=4)
    line.add_model(MODEL, best_batch=8, run_s=COST_S, abreast=abreast)
    flood = (Arrival(0.0) for _ in range(900))
    sizes = []
    take = line.take

    def noted(now: float) -> Cut | None:
        cut = take(now)
        if cut is not None:
            sizes.append(len(cut.batch))
        return cut

    line.take = noted
    simulate(line, flood, {MODEL: COST_S}, lanes=4)

    assert sizes.count(8) > 0.95 * len(sizes)


def test_requests_are_answered_in_the_order_of_their_arrival():
    """Within one kind of request nobody overtakes."""
    line = backlog()
    tickets = [ticket() for _ in range(5)]
    for each in tickets:
        line.offer([each], 0.0)

    taken = [line.take(0.0).batch[0] for _ in tickets]

    assert taken == tickets


def test_a_full_line_refuses_at_once_and_says_when_to_come_back():
    """The bound is by images; the refusal names it and the time to drain."""
    line = backlog(capacity=100)
    for _ in range(100):
        line.offer([ticket()], 0.0)

    with pytest.raises(OverloadedError, match="at most 100 may") as refused:
        line.offer([ticket()], 0.0)

    assert refused.value.retry_after_s == pytest.approx(100 * COST_S / LANES)


def test_a_request_of_many_images_is_accepted_whole_or_not_at_all():
    """Half a batch would be half an answer."""
    line = backlog(capacity=10)
    first, second = object(), object()
    line.offer([ticket(request=first) for _ in range(8)], 0.0)

    with pytest.raises(OverloadedError):
        line.offer([ticket(request=second) for _ in range(3)], 0.0)

    assert len(line) == 8


def test_a_line_full_of_singles_still_has_room_for_a_batch_request():
    """Each kind has its own bound, so neither flood shuts the other out."""
    line = backlog(capacity=10)
    line.offer([ticket() for _ in range(10)], 0.0)
    request = object()

    line.offer([ticket(request=request) for _ in range(10)], 0.0)

    assert len(line) == 20


def test_an_image_that_cannot_make_its_deadline_is_refused_when_it_arrives():
    """Refusing later would cost its sender the wait and us the memory."""
    line = backlog()
    for _ in range(100):  # 0.4 s of work
        line.offer([ticket()], 0.0)

    with pytest.raises(OverloadedError, match="deadline"):
        line.offer([ticket(deadline=0.2)], 0.0)
    line.offer([ticket(deadline=2.0)], 0.0)

    assert len(line) == 101


@pytest.mark.parametrize(
    ("waiting", "images", "best_batch", "could_take"),
    [
        (1, 1, 1, SAFETY * 1 + 1),  # behind one, and then itself
        (8, 1, 8, SAFETY * 8 + 8),  # with all that are cut together with it
        (1, 10, 1, SAFETY * 10 + 1),  # nine of its own request are ahead of the last
    ],
)
def test_a_request_needs_time_for_what_is_ahead_of_its_last_image_and_for_its_run(
    waiting, images, best_batch, could_take
):
    """In images: one more has no time, one less is refused."""

    def offer(deadline: float) -> None:
        line = backlog(best_batch=best_batch, lanes=1)
        for _ in range(waiting):
            line.offer([ticket()], 0.0)
        request = object() if images > 1 else None
        line.offer([ticket(deadline=deadline, request=request)] * images, 0.0)

    offer((could_take + 0.1) * COST_S)
    with pytest.raises(OverloadedError):
        offer((could_take - 0.1) * COST_S)


def test_of_another_model_only_its_share_is_waited_for():
    """However long its line is, it has the lanes for half of the time."""
    other = ("other", 1)
    shared = backlog(lanes=1)
    shared.add_model(other, best_batch=1, run_s=COST_S)
    for _ in range(200):
        shared.offer([Ticket(other, b"", 0.0, None)], 0.0)
    for _ in range(10):
        shared.offer([ticket()], 0.0)

    assert shared.predicted_wait_s(MODEL, 0.0) == pytest.approx(20 * COST_S)


@pytest.mark.parametrize(
    ("now", "wait_s"),
    [
        (0.0, 5.0),  # one lane has 4 s to go, the other 4: (4 + 4 + 2) / 2
        (3.0, 2.0),  # each has 1 s: (1 + 1 + 2) / 2
        (9.0, 1.0),  # both are long overdue, and count as free
    ],
)
def test_a_wait_counts_what_busy_lanes_still_need(now, wait_s):
    """And no credit for what they are late by."""
    line = Backlog(capacity=8, lanes=2)
    line.add_model(MODEL, best_batch=4, run_s=1.0)
    for _ in range(8):
        line.offer([ticket()], 0.0)
    line.take(0.0)
    line.take(0.0)
    for _ in range(2):
        line.offer([ticket()], 0.0)

    assert line.predicted_wait_s(MODEL, now) == pytest.approx(wait_s)


@pytest.mark.parametrize(("lanes", "wait_s"), [(2, 2.0), (3, 1.0)])
def test_a_wait_may_be_for_the_lane_that_is_free_first(lanes, wait_s):
    """One batch takes 8 s, the other 1 s, and a third lane may be free now."""
    long, short = ("long", 1), ("short", 1)
    line = Backlog(capacity=8, lanes=lanes)
    for key, cost_s in ((long, 8.0), (short, 1.0)):
        line.add_model(key, best_batch=1, run_s=cost_s)
        line.offer([Ticket(key, b"", 0.0, None)], 0.0)
        line.take(0.0)
    line.offer([Ticket(short, b"", 0.0, None)], 0.0)

    assert line.predicted_wait_s(short, 0.0) == pytest.approx(wait_s)


def test_an_image_past_its_deadline_is_dropped_before_any_work():
    """Its place goes to one that can still be answered."""
    line = backlog()
    line.offer([dead := ticket(deadline=0.1)], 0.0)
    line.offer([alive := ticket(deadline=9.0)], 0.0)

    cut = line.take(0.2)

    assert (cut.expired, cut.batch) == ([dead], [alive])


def test_an_image_whose_sender_has_left_costs_nothing():
    """It is skipped, and whoever takes learns of it."""
    line = backlog()
    line.offer([gone := ticket()], 0.0)
    line.offer([here := ticket()], 0.0)
    gone.abandoned = True

    cut = line.take(0.0)

    assert (cut.expired, cut.batch, cut.withdrawn) == ([], [here], [gone])


def test_those_who_have_left_are_told_of_where_nobody_else_waits():
    """Who takes may have to count them."""
    line = backlog()
    line.offer([gone := ticket()], 0.0)
    gone.abandoned = True

    cut = line.take(0.0)

    assert (cut.batch, cut.withdrawn) == ([], [gone])
    assert line.take(0.0) is None


def test_an_image_is_late_by_the_run_that_it_would_be_in():
    """Not by a larger one, for which its model has no images."""
    other = ("other", 1)
    shared = backlog(best_batch=8, lanes=1)
    shared.add_model(other, best_batch=8, run_s=COST_S)
    shared.offer([ticket()], 0.0)
    shared.offer([second := ticket(deadline=4 * COST_S)], 0.0)
    for _ in range(20):
        shared.offer([Ticket(other, b"", 0.0, None)], 0.0)

    assert second in shared.take(0.0).batch


def test_a_batch_request_that_waited_longer_than_promised_is_remembered():
    """Its last image says by how much; a request like it is not promised as little."""
    shared, request, now = backlog(lanes=1), object(), 0.0
    items = [ticket(request=request) for _ in range(20)]
    shared.offer(items, now)
    while cut := shared.take(now):
        now += 3 * COST_S  # as if others had a part, so that the cost is not learned
        shared.finish(cut)
    for _ in range(10):
        shared.offer([ticket()], now)

    with pytest.raises(OverloadedError):
        shared.offer([ticket(deadline=now + 20 * COST_S)], now)


def test_an_image_that_was_next_at_the_decoders_need_not_be_so_at_the_lanes():
    """Each backlog judges it by the line that it finds there."""
    decoders, lanes = backlog(), backlog()
    image = ticket(deadline=COST_S / 2)
    decoders.offer([image], 0.0)
    lanes.offer([ticket()], 0.0)
    (cut,) = iter(lambda: decoders.take(0.0), None)
    lanes.offer(cut.batch, -1.0)

    lanes.take(0.0)

    assert lanes.take(0.0).expired == [image]


def test_a_refusal_for_want_of_room_says_how_many_came():
    """A batch may find places free and yet be too large for them."""
    line = backlog(capacity=4)
    first, second = object(), object()
    line.offer([ticket(request=first) for _ in range(2)], 0.0)

    said = "2 images wait for model, and 4 more came; at most 4 may wait"
    with pytest.raises(OverloadedError, match=said):
        line.offer([ticket(request=second) for _ in range(4)], 0.0)


def test_images_that_are_on_their_way_count_as_waiting():
    """For the room of their kind, and for the wait of those that come after them."""
    lanes = backlog(capacity=100)
    for _ in range(50):
        lanes.offer([ticket()], 0.0)

    wait_s = lanes.check([ticket()], 0.0, coming=30)
    with pytest.raises(OverloadedError, match="deadline"):
        lanes.check([ticket(deadline=0.3)], 0.0, coming=30)
    with pytest.raises(OverloadedError, match="100 images wait") as refused:
        lanes.check([ticket()], 0.0, coming=50, coming_s=2.0)
    lanes.check([ticket(request=object())], 0.0)

    assert wait_s == pytest.approx(80 * COST_S / LANES)
    assert refused.value.retry_after_s == 2.0


def test_images_that_are_on_their_way_are_waited_for_though_nothing_waits_yet():
    """They will be there first: who could not be answered after them hears it now."""
    lanes = backlog()

    with pytest.raises(OverloadedError, match="deadline"):
        lanes.check([ticket(deadline=0.2)], 0.0, coming=100)


def test_who_is_refused_for_a_deadline_comes_back_when_the_line_is_served():
    """And not only after the time that its own answer could take, which has a margin
    for what goes wrong."""
    line = backlog()
    for _ in range(100):
        line.offer([ticket()], 0.0)

    with pytest.raises(OverloadedError, match="deadline") as refused:
        line.offer([ticket(deadline=0.2)], 0.0)

    assert refused.value.retry_after_s == pytest.approx(100 * COST_S / LANES)


def test_singles_go_before_batch_items_and_leave_every_fourth_place():
    """Three singles, one batch item, and batch requests take turns."""
    line = backlog()
    first, second = object(), object()
    line.offer([ticket(request=first) for _ in range(4)], 0.0)
    line.offer([ticket(request=second) for _ in range(4)], 0.0)
    for _ in range(9):
        line.offer([ticket()], 0.0)

    kinds = [line.take(0.0).batch[0].request for _ in range(17)]

    turn = [None] * SINGLES_PER_BATCH_ITEM
    assert kinds[:12] == [*turn, first, *turn, second, *turn, first]
    assert set(kinds[12:]) == {first, second}


def test_overload_keeps_the_lanes_busy_and_every_answer_in_time():
    """At 3 times capacity: goodput is capacity, no late answer, few wasted waits."""
    arrivals = poisson(3 * CAPACITY_PER_S, 60, timeout_s=0.5)

    report = simulate(backlog(), arrivals, {MODEL: COST_S}, lanes=LANES)

    goodput = report.answered[MODEL] / report.ended
    assert goodput > 0.97 * CAPACITY_PER_S
    assert report.late == 0
    assert report.expired < 0.02 * report.answered[MODEL]
    assert report.refused


@pytest.mark.parametrize("period_s", [0.2, 1.0, 5.0])
def test_promises_are_kept_on_a_machine_that_is_slowed_down_now_and_then(period_s):
    """Others take half of it for a while: what was admitted is still answered."""
    arrivals = poisson(3 * CAPACITY_PER_S, 120, timeout_s=2.0)

    def slowness(now: float) -> float:
        return 2.0 if now % (2 * period_s) > period_s else 1.0

    report = simulate(
        backlog(capacity=1000, best_batch=4),
        arrivals,
        {MODEL: COST_S},
        lanes=LANES,
        slowness=slowness,
    )

    answered = report.answered[MODEL]
    # half of the time at half the speed
    assert answered / report.ended > 0.95 * 0.75 * CAPACITY_PER_S
    assert report.expired + report.late < BROKEN_PROMISES * answered


def test_promises_are_kept_when_batch_requests_and_another_model_come_later():
    """Both take places of singles that wait already, and those were told the truth."""
    other = ("other", 1)
    shared = Backlog(capacity=1000, lanes=LANES)
    for key in (MODEL, other):
        shared.add_model(key, best_batch=4, gentle_batch=1, run_s=COST_S)
    arrivals = list(poisson(3 * CAPACITY_PER_S, 60, timeout_s=2.0))
    arrivals += poisson(CAPACITY_PER_S / 32, 60, seed=1, images=32, timeout_s=2.0)
    arrivals += [
        Arrival(at + 0.01 * n, model=other, timeout_s=2.0)
        for at in range(5, 60, 10)
        for n in range(500)
    ]

    costs = {MODEL: COST_S, other: COST_S}
    report = simulate(shared, arrivals, costs, lanes=LANES)

    answered = sum(report.answered.values())
    assert answered / report.ended > 0.95 * CAPACITY_PER_S
    assert report.expired + report.late < BROKEN_PROMISES * answered


def test_after_a_freeze_images_are_answered_as_before():
    """A machine that stood still for a minute says nothing of the next image."""
    arrivals = [Arrival(n / 10, timeout_s=1.0) for n in range(1000)]

    def frozen(now: float) -> float:
        return 60 / COST_S if 10.05 < now < 10.35 else 1.0

    line = backlog()
    report = simulate(line, arrivals, {MODEL: COST_S}, lanes=LANES, slowness=frozen)

    # lost is what came while both lanes stood still; the two that they held are late
    assert report.answered[MODEL] > 1000 - 60 * 10
    assert report.late == LANES
    assert report.waits["single"][-200:] == pytest.approx([COST_S] * 200)


@pytest.mark.parametrize("others_per_s", [1, 1.5 * CAPACITY_PER_S])
def test_a_cost_above_the_deadline_is_unlearned(others_per_s):
    """The engine may be idle, or full of another model's images: those that are cheap
    again are answered, though the last ones took longer than they may."""
    other = ("other", 1)
    shared = Backlog(capacity=1000, lanes=LANES)
    for key in (MODEL, other):
        shared.add_model(key, best_batch=1, run_s=COST_S)
    while shared.cost_s(MODEL) < 2.0:
        shared.offer([ticket()], 0.0)
        shared.finish(shared.take(0.0), decode_s=0.0, run_s=3.0)

    def arrivals(begin_s: float) -> list[Arrival]:
        mine = [Arrival(begin_s + n / 10, timeout_s=1.0) for n in range(200)]
        others = poisson(others_per_s, 20)
        return mine + [Arrival(begin_s + o.at, 1, other, 1.0) for o in others]

    costs = {MODEL: COST_S, other: COST_S}
    simulate(shared, arrivals(0.0), costs, lanes=LANES)  # learns
    report = simulate(shared, arrivals(30.0), costs, lanes=LANES)

    assert report.answered[MODEL] == 200


def test_a_batch_that_finds_its_line_empty_is_taken_however_long_it_may_take():
    """Told to come back it would never be taken. What is late is so by itself."""
    line = Backlog(capacity=64, lanes=LANES)
    line.add_model(MODEL, best_batch=1, run_s=0.25)
    whole = Arrival(0.0, images=64, timeout_s=5.0)

    report = simulate(line, [whole], {MODEL: 0.25}, lanes=LANES)

    assert report.refused == []
    assert report.answered[MODEL] - report.late == LANES * 5.0 / 0.25
    assert report.late <= LANES


def test_runs_are_small_where_singles_meet_batch_requests():
    """A single that comes during one waits for few images; a crowd of singles runs
    together."""
    line = Backlog(capacity=100, lanes=1)
    line.add_model(MODEL, best_batch=4, gentle_batch=1, run_s=COST_S)
    request = object()
    line.offer([ticket(request=request) for _ in range(3)], 0.0)
    for _ in range(9 + 6):  # three for each item, and six more
        line.offer([ticket()], 0.0)

    sizes = [len(cut.batch) for cut in iter(lambda: line.take(0.0), None)]

    assert sizes == [1] * 12 + [4, 2]


def test_batch_requests_alone_run_in_large_batches():
    """Nobody waits for the end of a run; but the next single is remembered a while."""
    line = Backlog(capacity=100, lanes=1)
    line.add_model(MODEL, best_batch=4, gentle_batch=1, run_s=COST_S)

    def sizes(now: float) -> list[int]:
        request = object()
        line.offer([ticket(request=request) for _ in range(8)], now)
        return [len(cut.batch) for cut in iter(lambda: line.take(now), None)]

    assert sizes(0.0) == [4, 4]
    line.offer([ticket()], 1.0)
    assert sizes(1.0) == [1] * 9
    assert sizes(1.0 + SINGLES_EXPECTED_S - 0.1) == [1] * 8
    assert sizes(1.0 + SINGLES_EXPECTED_S) == [4, 4]


@pytest.mark.parametrize("capacity", [500, 2000])
def test_retry_after_is_the_time_the_backlog_really_takes(capacity):
    """Within a factor of two, when the load stops at the refusal."""
    line = backlog(capacity=capacity)
    burst = [Arrival(0.0) for _ in range(LANES + capacity + 1)]

    report = simulate(line, burst, {MODEL: COST_S}, lanes=LANES)

    (promised,) = report.refused
    assert 0.5 < promised / report.ended < 2


def test_batch_requests_do_not_starve_singles():
    """Singles beside a flood of batch requests wait for at most a run or two."""
    flood = [Arrival(0.0, images=32) for _ in range(7)]
    flood += [Arrival(n * 0.128, images=32) for n in range(1, 200)]  # saturates
    singles = list(poisson(20, 25))

    report = simulate(
        backlog(capacity=1024), [*flood, *singles], {MODEL: COST_S}, lanes=LANES
    )

    assert np.percentile(report.waits["single"], 99) <= 3 * COST_S


def test_singles_do_not_starve_batch_requests():
    """A flood of singles leaves batch items their quarter."""
    singles = list(poisson(2 * CAPACITY_PER_S, 10))
    batch = Arrival(1.0, images=32)

    report = simulate(backlog(), [batch, *singles], {MODEL: COST_S}, lanes=LANES)

    # 32 items at a quarter of 250 images a second
    assert max(report.waits["batch"]) < 2 * 32 / (CAPACITY_PER_S / 4)


def test_models_share_the_lanes_by_time_however_different_their_costs():
    """A flood for a cheap model and one for a dear one have half the lanes each."""
    cheap, dear = ("cheap", 1), ("dear", 1)
    costs_s, now = {cheap: 0.001, dear: 0.05}, 0.0
    shared = Backlog(capacity=10_000, lanes=1)
    for key, cost_s in costs_s.items():
        shared.add_model(key, best_batch=4, run_s=cost_s)
        for _ in range(int(5 / cost_s)):
            shared.offer([Ticket(key, b"", 0.0, None)], now)

    used_s = {cheap: 0.0, dear: 0.0}
    while now < 4:  # of 10 s that both would take
        cut = shared.take(now)
        key, images = cut.batch[0].model, len(cut.batch)
        used_s[key] += images * costs_s[key]
        now += images * costs_s[key]
        shared.finish(cut, decode_s=0.0, run_s=costs_s[key])

    assert used_s[cheap] == pytest.approx(used_s[dear], abs=4 * costs_s[dear])


def test_an_idle_model_saves_up_no_share():
    """After an hour of silence a model does not shut the busy one out."""
    busy, idle = ("busy", 1), ("idle", 1)
    shared = Backlog(capacity=10_000, lanes=1)
    for key in (busy, idle):
        shared.add_model(key, best_batch=1, run_s=0.01)
    arrivals = [Arrival(0.01 * n, model=busy) for n in range(1000)]
    arrivals += [Arrival(5.0, model=idle) for _ in range(500)]

    report = simulate(shared, arrivals, {busy: 0.01, idle: 0.01}, lanes=1)

    assert max(report.waits["single"]) < 10.5  # never locked out for the burst alone
    assert report.answered == {busy: 1000, idle: 500}


def test_a_model_that_was_silent_for_an_hour_has_its_half_from_then_on_and_not_all():
    """What it did not use is gone."""
    busy, idle = ("busy", 1), ("idle", 1)
    shared = Backlog(capacity=100, lanes=1)
    for key in (busy, idle):
        shared.add_model(key, best_batch=1, run_s=COST_S)

    def offer(key: tuple[str, int]) -> None:
        shared.offer([Ticket(key, b"", 0.0, None)], 0.0)

    def serve() -> tuple[str, int]:
        cut = shared.take(0.0)
        shared.finish(cut)
        return cut.batch[0].model

    for _ in range(100):
        offer(busy)
        serve()
    for key in [busy, idle] * 10:
        offer(key)
    taken = [serve() for _ in range(10)]

    assert 4 <= taken.count(idle) <= 6


@pytest.mark.parametrize(("load", "seconds"), [(10, 10), (1000, 1)])
def test_a_flood_far_beyond_capacity_changes_nothing_for_those_accepted(load, seconds):
    """At 10 and at 1,000 times the load the goodput and the promise are the same."""
    arrivals = poisson(load * CAPACITY_PER_S, seconds, timeout_s=0.3)

    report = simulate(backlog(), arrivals, {MODEL: COST_S}, lanes=LANES)

    assert report.late == 0
    assert report.expired <= 0.01 * report.answered[MODEL]
    assert report.answered[MODEL] > 0.97 * CAPACITY_PER_S * seconds


def test_the_cost_of_an_image_is_learned():
    """After a slow-down the predictions follow within some tens of batches."""
    line = backlog()
    for _ in range(60):
        line.offer([ticket()], 0.0)
        line.finish(line.take(0.0), decode_s=0.0, run_s=0.08)

    assert line.cost_s(MODEL) == pytest.approx(0.08, rel=0.05)


def singles(line: Backlog, images: int) -> None:
    """So many requests of one image."""
    for _ in range(images):
        line.offer([ticket()], 0.0)


def batches(line: Backlog, images: int) -> None:
    """As many images in batch requests."""
    for _ in range(images // 4):
        request = object()
        line.offer([ticket(request=request) for _ in range(4)], 0.0)


def of_two_models(line: Backlog, images: int) -> None:
    """Half of each kind, and as many of another model."""
    other = ("other", 1)
    line.add_model(other, best_batch=4, run_s=COST_S)
    for _ in range(images):
        line.offer([Ticket(other, b"", 0.0, None)], 0.0)
    singles(line, images // 2)
    batches(line, images // 2)


@pytest.mark.parametrize("wait", [singles, batches, of_two_models])
def test_a_decision_costs_the_same_however_many_wait(wait):
    """Counted in executed lines, not in time: 100 or 10,000 waiting is one."""

    def cost(waiting: int) -> int:
        line = backlog(capacity=20_000, best_batch=4)
        wait(line, waiting)

        def decide() -> None:
            line.finish(line.take(0.0), decode_s=0.0, run_s=COST_S)
            singles(line, 1)
            batches(line, 4)

        return lines_executed(decide)

    assert cost(100) == cost(10_000)


def test_those_whose_senders_have_left_are_looked_at_once():
    """Whoever takes next passes over all of them, for so much each, and never again."""

    def cost(gone: int) -> int:
        line = backlog(capacity=20_000)
        for _ in range(gone):
            line.offer([left := ticket()], 0.0)
            left.abandoned = True
        singles(line, 2)

        line_count = lines_executed(lambda: line.take(0.0))
        assert lines_executed(lambda: line.take(0.0)) < 100
        return line_count

    few, many = cost(100), cost(1000)
    assert many < 10 * few


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 2),
            st.integers(1, 40),
            st.one_of(st.none(), st.floats(0.001, 1)),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
    st.integers(1, 8),
)
def test_every_image_has_exactly_one_fate(requests, lanes, best_batch):
    """Answered, expired or refused: whatever arrives, nothing is lost or doubled."""
    line = Backlog(capacity=64, lanes=lanes)
    line.add_model(MODEL, best_batch=best_batch, run_s=COST_S)
    arrivals = [Arrival(at, images, MODEL, limit) for at, images, limit in requests]

    report = simulate(line, arrivals, {MODEL: COST_S}, lanes=lanes)

    offered = sum(images for _, images, _ in requests)
    served = report.answered[MODEL] + report.expired
    assert served <= offered
    assert len(line) == 0
    assert line.busy == 0
    if not report.refused:
        assert served == offered


def test_time_is_only_ever_passed_in():
    """The policy has no clock of its own, or the simulation would prove nothing."""
    for module in (policy, order):
        assert not any(value is time for value in vars(module).values())
