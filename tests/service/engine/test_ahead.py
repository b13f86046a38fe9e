"""Decoding before the backlog, as on a GPU, with everything else real."""

import asyncio
import threading
import time
import weakref
from functools import partial

import pytest

from classifier.decode import DecodeLimits
from classifier.errors import ImageError
from service.asking import classify_many
from service.contract import Outcome
from service.engine.ahead import DecodeAhead
from service.engine.decoding import decode_ticket
from service.engine.engine import LaneEngine
from service.engine.ticket import Ticket
from service.errors import DrainingError, EngineFailedError, OverloadedError
from service.settings import Settings
from tests.service.closing import close_while_decoding
from tests.synthetic import make_bundle, png

COLORS = ("colors", 1)


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
    """By what decoding has cost so far; it says when to come back. Idle threads try it
    all the same, or a cost that was learned too high would refuse everybody for good.
    """
    specs = {COLORS: engine.loaded[0].manifest.preprocess}
    ahead = DecodeAhead(specs, limits=DecodeLimits(), capacity=100, threads=1)
    for _ in range(3):
        await decode(ahead, [Ticket(COLORS, png((1, 2, 3), (500, 500)), 0.0, None)])
    soon = time.monotonic() + 1e-6
    first, second = (Ticket(COLORS, png((1, 2, 3)), 0.0, soon) for _ in range(2))

    taken = asyncio.ensure_future(decode(ahead, [first]))
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError, match="past the deadline"):
        await decode(ahead, [second])

    assert await taken == {}
    ahead.close()


async def test_the_time_of_decoding_ahead_is_told_as_such(engine):
    """Not as waiting."""
    timing = (await classify_many(engine, COLORS, [png((9, 9, 9))], deadline=None))[
        0
    ].timing

    assert timing.decode_ms > 0
    assert timing.queue_ms >= 0


async def test_decoding_ahead_is_bounded(engine):
    """More images than may wait are refused before they are decoded."""
    specs = {COLORS: engine.loaded[0].manifest.preprocess}
    ahead = DecodeAhead(specs, limits=DecodeLimits(), capacity=2, threads=2)
    tickets = [Ticket(COLORS, png((1, 2, 3)), 0.0, None) for _ in range(3)]

    with pytest.raises(OverloadedError, match="at most 2 may"):
        await decode(ahead, tickets)
    assert await decode(ahead, tickets[:2]) == {}
    ahead.close()
    await asyncio.sleep(0)


async def test_a_fault_of_ours_fails_one_image_and_leaves_its_neighbors(engine):
    """As in a lane: it is settled like any other error, and nobody waits for ever."""
    specs = {COLORS: engine.loaded[0].manifest.preprocess}
    red, green = (Ticket(COLORS, png(c), 0.0, None) for c in ((9, 0, 0), (0, 9, 0)))

    def keep(ticket, ready):
        if ticket is red:
            raise RuntimeError("no room for it")
        return ready

    ahead = DecodeAhead(
        specs, limits=DecodeLimits(), capacity=100, threads=1, keep=keep
    )
    failed = await decode(ahead, [red, green])
    ahead.close()

    assert list(failed) == [red]
    assert isinstance(failed[red], EngineFailedError)
    assert green.ready is not None


async def test_a_request_that_cannot_be_told_does_not_keep_the_others_from_hearing(
    engine,
):
    """All that is finished goes back together, but a fault is one request's alone."""
    specs = {COLORS: engine.loaded[0].manifest.preprocess}
    loop, faults, told = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    ahead = DecodeAhead(specs, limits=DecodeLimits(), capacity=100, threads=1)

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
    specs = {COLORS: engine.loaded[0].manifest.preprocess}
    ahead = DecodeAhead(specs, limits=DecodeLimits(), capacity=100, threads=1)

    def settle(fate):
        """The ticket's way to its sender."""

    sender = weakref.ref(settle)
    await decode(ahead, [Ticket(COLORS, png((1, 2, 3)), 0.0, None, settle=settle)])
    del settle
    async with asyncio.timeout(10):
        while sender() is not None:  # noqa: ASYNC110  (the thread says nothing)
            await asyncio.sleep(0)
    ahead.close()


async def test_closing_tells_those_whose_images_are_being_decoded(engine, monkeypatch):
    """Those at work, those in line for it and those just come: each once, at once."""
    closing = await close_while_decoding(
        engine, COLORS, in_line=20, monkeypatch=monkeypatch
    )

    assert closing.told == closing.fates == [DrainingError] * 22
    assert engine.queued(COLORS) == 0


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
