"""Decoding before the backlog, as on a GPU, with everything else real."""

import asyncio
import threading
import time
import weakref
from functools import partial

import pytest

from classifier.errors import ImageError
from service.asking import classify_many
from service.contract import Outcome
from service.engine.ahead import STUCK, DecodeAhead, Decoder
from service.engine.decoding import as_it_is, decode_ticket
from service.engine.engine import LaneEngine
from service.engine.ticket import Ticket, build_tickets
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    EngineFailedError,
    OverloadedError,
)
from service.settings import Settings
from service.watchdog import SILENT_LOOKS
from tests.service.closing import close_while_decoding
from tests.service.conftest import until
from tests.synthetic import SLOW, make_bundle, png

COLORS, ODD = ("colors", 1), ("odd", 1)


def decoders(
    engine, *, threads=1, cost_s=0.001, keep=as_it_is, give_up=lambda: None, **settings
):
    """Threads that decode for the models of an engine, and for nothing behind them."""
    specs = {
        (each.manifest.name, each.manifest.version): each.manifest.preprocess
        for each in engine.loaded
    }
    return DecodeAhead(
        specs,
        Settings(**{"queue_capacity": 100} | settings),
        costs_s=dict.fromkeys(specs, cost_s),
        threads=threads,
        give_up=give_up,
        keep=keep,
    )


async def decode(ahead, tickets):
    """Wait for those that have no pixels."""
    done = asyncio.get_running_loop().create_future()
    ahead.decode(tickets, done.set_result)
    return await done


@pytest.fixture
async def engine(tmp_path):
    """An engine on the CPU that is told to decode ahead."""
    make_bundle(tmp_path, "colors")
    started = LaneEngine(Settings(models=tmp_path, decode="ahead"))
    await started.start()
    yield started
    await started.close()


async def test_what_is_no_image_teaches_the_decoders_nothing_of_what_one_costs(engine):
    """To refuse it takes no time, and a flood of it would promise all others none."""
    ahead = decoders(engine, cost_s=1.0)
    try:
        for _ in range(3):
            await decode(ahead, [Ticket(COLORS, b"no image", 0.0, None)])

        assert ahead._backlog.cost_s(COLORS) == 1.0
    finally:
        ahead.close()


async def test_a_request_is_decoded_by_all_that_are_free(engine, monkeypatch):
    """On a GPU a batch that one thread decodes takes as many times as long as there
    are cores."""
    both = threading.Barrier(2, timeout=20)

    def meet(*given, **named):
        both.wait()
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", meet)
    ahead = decoders(engine, threads=2)
    try:
        await until(lambda: len(ahead._changed._waiters) == 2)
        tickets = build_tickets(
            Ticket,
            COLORS,
            [png((9, 9, 9))] * 2,
            deadline=None,
            settle=lambda *_: None,
            explain=False,
        )
        async with asyncio.timeout(60):
            failed = await decode(ahead, tickets)
    finally:
        ahead.close()

    assert failed == {}


async def test_decoders_that_were_closed_are_not_taken_for_dead(engine):
    """The service would end as a broken one."""
    told = []
    ahead = decoders(engine, hang_timeout_s=0.2, give_up=lambda: told.append(1))

    ahead.close()
    await asyncio.sleep(0.5)

    assert told == []


class OneDecoder:
    """An engine with one decoder, which can be held at an image."""

    def __init__(self, engine, monkeypatch):
        self.engine = engine
        self.order = []  # model and request of each image, as they were decoded
        self._begun, self._go_on = asyncio.Event(), threading.Event()
        self._loop, self._missing = asyncio.get_running_loop(), 0
        self._settled = asyncio.Event()
        monkeypatch.setattr("service.engine.ahead.decode_ticket", self._decode)

    def submit(self, key=COLORS, images=1, *, deadline=None):
        """The fates of a request, once they are known."""
        return self.ask(key, [png((9, 9, 9))] * images, deadline=deadline)[0]

    def ask(self, key, images, *, deadline=None):
        """The same of these images, and how to withdraw them."""
        fates = []

        def settle(_, fate):
            fates.append(fate)
            self._missing -= 1
            self._settled.set()

        withdraw = self.engine.submit(key, images, deadline=deadline, settle=settle)
        self._missing += len(images)
        return fates, withdraw

    async def hold(self):
        """Let the decoder have an image, and no other."""
        self.submit()
        await self._begun.wait()

    def go_on(self):
        """Let the decoder decode."""
        self._go_on.set()

    async def let_go(self, *, withdrawn=0):
        """Wait until all is settled, but for those who have left."""
        self.go_on()
        while self._missing > withdrawn:
            self._settled.clear()
            await self._settled.wait()

    def _decode(self, ticket, *given, **named):
        self.order.append((ticket.model, ticket.request))
        self._loop.call_soon_threadsafe(self._begun.set)
        self._go_on.wait(20)
        return decode_ticket(ticket, *given, **named)


@pytest.fixture
async def one_decoder(tmp_path, monkeypatch):
    """Of an engine with two models and little room, held at its first image."""
    make_bundle(tmp_path, "colors")
    make_bundle(tmp_path, "odd", misbehaves=True, slow_loops=200_000)
    monkeypatch.setattr("service.engine.engine.available_cores", lambda: 1)
    given = {"queue_capacity": 8, "max_batch_items": 8, "lanes": 1}
    engine = LaneEngine(Settings(models=tmp_path, decode="ahead", **given))
    await engine.start()
    decoder = OneDecoder(engine, monkeypatch)
    yield decoder
    decoder.go_on()
    await engine.close()


async def test_singles_are_decoded_before_batch_items_and_batches_take_turns(
    one_decoder,
):
    """As in the backlog of the lanes: a single waits for an image, not for a batch."""
    await one_decoder.hold()
    one_decoder.submit(images=4)
    one_decoder.submit(images=4)
    one_decoder.submit()

    await one_decoder.let_go()

    _, first, *items = (request for _, request in one_decoder.order)
    assert first is None
    assert items[0::2] == [items[0]] * 4
    assert items[1::2] == [items[1]] * 4


async def test_models_share_the_decoders(one_decoder):
    """An image of one model does not wait for all those of another."""
    await one_decoder.hold()
    for _ in range(7):
        one_decoder.submit()
    one_decoder.submit(ODD)

    await one_decoder.let_go()

    assert [model for model, _ in one_decoder.order].index(ODD) == 1


async def test_a_flood_of_singles_leaves_room_for_batches_and_for_another_model(
    one_decoder,
):
    """Each kind of request of each model has its own, ahead of the lanes too."""
    await one_decoder.hold()
    for _ in range(7):  # beside the one that it has
        one_decoder.submit()
    with pytest.raises(OverloadedError, match="8 images wait for colors") as refused:
        one_decoder.submit()

    batch, other = one_decoder.submit(images=8), one_decoder.submit(ODD)
    await one_decoder.let_go()

    assert refused.value.retry_after_s > 0
    assert [type(fate) for fate in batch + other] == [Outcome] * 9


async def test_an_image_that_waited_past_its_deadline_is_not_decoded(one_decoder):
    """Its sender hears so, and its mates and the others go on."""
    await one_decoder.hold()
    late = one_decoder.submit(deadline=time.monotonic() + 20)
    here = one_decoder.submit(images=2)
    for ticket in one_decoder.engine._ahead._requests:
        if ticket.deadline is not None:
            ticket.deadline = 0.0  # it has passed meanwhile

    await one_decoder.let_go()

    assert [type(fate) for fate in late] == [DeadlineExceededError]
    assert [type(fate) for fate in here] == [Outcome] * 2
    assert len(one_decoder.order) == 3


async def test_an_image_whose_sender_has_left_is_not_decoded(one_decoder):
    """Neither a single nor one of a batch request, and they wait no longer."""
    await one_decoder.hold()
    _, leave = one_decoder.ask(COLORS, [png((9, 9, 9))])
    _, leave_too = one_decoder.ask(COLORS, [png((9, 9, 9))] * 2)
    here = one_decoder.submit()
    leave()
    leave_too()

    await one_decoder.let_go(withdrawn=3)
    await until(lambda: not one_decoder.engine.queued(COLORS))

    assert [type(fate) for fate in here] == [Outcome]
    assert len(one_decoder.order) == 2


async def test_what_the_lanes_have_no_room_for_is_refused_before_it_is_decoded(
    one_decoder,
):
    """Those on their way to pixels are counted: each will want a place there."""
    one_decoder.go_on()
    engine, slow = one_decoder.engine, png((SLOW, 0, 0))
    fates = [one_decoder.ask(ODD, [slow])[0]]
    await until(lambda: engine._backlog.busy)
    fates += [one_decoder.submit(ODD) for _ in range(4)]
    await until(lambda: engine._backlog.waiting(ODD) >= 4)
    fates += [one_decoder.submit(ODD) for _ in range(4)]

    with pytest.raises(OverloadedError, match="8 images wait for odd") as refused:
        one_decoder.submit(ODD)
    await one_decoder.let_go()

    assert refused.value.retry_after_s > 0
    assert [type(fate) for (fate,) in fates] == [Outcome] * 9


async def test_images_decoded_ahead_are_answered_in_their_places(engine):
    """A broken one among them is an error in its own place."""
    images = [png((200, 0, 0)), b"garbage", png((0, 200, 0))]

    settled = await classify_many(engine, COLORS, images, deadline=None)

    assert isinstance(settled[0], Outcome)
    assert isinstance(settled[1], ImageError)
    assert settled[2].logits.argmax() == 1


async def test_a_request_of_broken_images_alone_never_reaches_a_lane(engine):
    """There is nothing to offer."""
    settled = await classify_many(engine, COLORS, [b"a", b"b"], deadline=None)

    assert all(isinstance(each, ImageError) for each in settled)


async def test_what_cannot_be_decoded_in_time_is_refused_at_once(engine):
    """By what decoding has cost so far; it says when to come back. Who finds nobody in
    line is taken all the same, or a cost that was learned too high would refuse
    everybody for good."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_, ready):
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)
        return ready

    ahead = decoders(engine, cost_s=30.0, keep=hold)
    until = time.monotonic() + 15.0
    tickets = [Ticket(COLORS, png((1, 2, 3)), 0.0, until) for _ in range(3)]

    first = asyncio.ensure_future(decode(ahead, [tickets[0]]))
    await begun.wait()
    second = asyncio.ensure_future(decode(ahead, [tickets[1]]))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="the answer could take") as refused:
        await decode(ahead, [tickets[2]])
    go_on.set()

    assert await first == await second == {}
    assert refused.value.retry_after_s > 15.0
    ahead.close()


async def test_an_image_that_is_decoded_for_ever_asks_for_a_new_process(one_decoder):
    """One decoder less is none at all where a front-end has one, and each image would
    wait for it until its deadline."""
    engine = one_decoder.engine
    await one_decoder.hold()
    assert engine.unready() is None

    engine._ahead._look_every_s = 0.01
    engine._ahead._look()
    async with asyncio.timeout(20):
        await engine.broken()

    assert engine.unready() == STUCK
    await one_decoder.let_go()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_decoder_that_dies_asks_for_a_new_process(engine, monkeypatch):
    """Of whatever it was, and at no image: nobody would look for the next."""
    gave_up = asyncio.Event()
    monkeypatch.setattr(DecodeAhead, "_next", lambda _: 1 / 0)
    ahead = decoders(engine, threads=2, hang_timeout_s=0.02, give_up=gave_up.set)

    async with asyncio.timeout(20):
        await gave_up.wait()

    ahead.close()


def test_a_decoder_at_work_hangs_only_by_so_many_looks():
    """When a machine has stood still there was one; and another image is no hanging."""
    decoder = Decoder()
    decoder.thread = threading.current_thread()
    looks = [decoder.stands_still() for _ in range(9)]
    decoder.begun = 1
    looks += [decoder.stands_still() for _ in range(SILENT_LOOKS)]
    decoder.begun, decoder.ended = 2, 1
    looks += [decoder.stands_still() for _ in range(SILENT_LOOKS)]

    assert not any(looks)
    assert decoder.stands_still()


async def test_the_time_of_decoding_ahead_is_told_as_such(engine):
    """Not as waiting."""
    timing = (await classify_many(engine, COLORS, [png((9, 9, 9))], deadline=None))[
        0
    ].timing

    assert timing.decode_ms > 0
    assert timing.queue_ms >= 0


async def test_to_a_lane_an_image_that_was_decoded_ahead_costs_its_run_alone(engine):
    """With its decoding as well, images would be refused that have the time."""
    backlog = engine._backlog

    assert backlog.cost_s(COLORS) == backlog.run_s(COLORS) > 0


async def test_decoding_ahead_is_bounded(engine):
    """More images than may wait are refused before they are decoded."""
    ahead = decoders(engine, queue_capacity=2, max_batch_items=2, threads=2)
    tickets = [Ticket(COLORS, png((1, 2, 3)), 0.0, None) for _ in range(3)]

    with pytest.raises(OverloadedError, match="at most 2 may"):
        await decode(ahead, tickets)
    assert await decode(ahead, tickets[:2]) == {}
    ahead.close()
    await asyncio.sleep(0)


async def test_a_fault_of_ours_fails_one_image_and_leaves_its_neighbors(engine):
    """As in a lane: it is settled like any other error, and nobody waits for ever."""
    red, green = (Ticket(COLORS, png(c), 0.0, None) for c in ((9, 0, 0), (0, 9, 0)))

    def keep(ticket, ready):
        if ticket is red:
            raise RuntimeError("no room for it")
        return ready

    ahead = decoders(engine, keep=keep)
    failed = await decode(ahead, [red, green])
    ahead.close()

    assert list(failed) == [red]
    assert isinstance(failed[red], EngineFailedError)
    assert green.ready is not None


async def test_a_request_that_cannot_be_told_does_not_keep_the_others_from_hearing(
    engine,
):
    """All that is finished goes back together, but a fault is one request's alone."""
    loop, faults, told = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    ahead = decoders(engine)

    def done(number, _):
        told.append(number)
        if number in (0, 2):
            raise RuntimeError("a fault of ours")

    def ask(number):
        ticket = Ticket(COLORS, png((1, 2, 3)), 0.0, None)
        ahead.decode([ticket], partial(done, number))

    ask(0)
    ask(1)
    while len(ahead._finished) < 2:
        pass  # the loop must not turn, or each would be told in a turn of its own
    await asyncio.sleep(0)
    first = list(told)
    ask(2)
    ask(3)
    ahead.close()

    assert first == [0, 1]
    assert sorted(told) == [0, 1, 2, 3]
    assert [str(fault) for fault in faults] == ["a fault of ours"] * 2


async def test_a_thread_without_work_keeps_nothing_of_its_last_image(engine):
    """It may wait for hours, and bytes and connection of the sender are long gone."""
    ahead = decoders(engine)

    def settle(fate):
        """The ticket's way to its sender."""

    sender = weakref.ref(settle)
    await decode(ahead, [Ticket(COLORS, png((1, 2, 3)), 0.0, None, settle=settle)])
    del settle
    await until(lambda: sender() is None)
    ahead.close()


async def test_closing_tells_those_whose_images_are_being_decoded(engine, monkeypatch):
    """Those at work, those in line for it and those just come: each once, at once."""
    closing = await close_while_decoding(
        engine, COLORS, in_line=20, monkeypatch=monkeypatch
    )

    assert closing.told == closing.fates == [DrainingError] * 22
    assert engine.queued(COLORS) == 0


async def test_a_decoder_that_hangs_at_the_end_is_left_behind(engine, monkeypatch):
    """The status of the process says so, as of a run that hangs."""
    go_on = threading.Event()
    monkeypatch.setattr(
        "service.engine.ahead.decode_ticket", lambda *_, **__: go_on.wait(60)
    )
    monkeypatch.setattr("service.engine.ahead.JOIN_S", 1.0)
    engine.submit(COLORS, [png((9, 9, 9))], deadline=None, settle=lambda *_: None)
    await until(lambda: any(decoder.begun for decoder in engine._ahead._decoders))

    left = await engine.close()
    go_on.set()

    assert left == 1


async def test_images_that_wait_for_a_decoder_are_queued(engine, monkeypatch):
    """They are most of those that wait, where decoding is what is slow."""
    go_on = threading.Event()

    def held(*given, **named):
        go_on.wait(20)
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    asked = asyncio.create_task(
        classify_many(engine, COLORS, [png((9, 9, 9))] * 30, deadline=None)
    )
    await asyncio.sleep(0)
    queued = engine.queued(COLORS)
    go_on.set()
    await asked

    assert (queued, engine.queued(COLORS)) == (30, 0)


async def test_every_core_decodes_ahead_of_the_lanes(tmp_path, monkeypatch):
    """On a GPU decoding is what takes long."""
    make_bundle(tmp_path, "colors")
    monkeypatch.setattr("service.engine.engine.available_cores", lambda: 3)
    engine = LaneEngine(Settings(models=tmp_path, decode="ahead"))
    await engine.start()
    threads = engine._ahead._backlog.lanes
    await engine.close()

    assert threads == 3
