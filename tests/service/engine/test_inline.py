"""Tiny images on the event loop: when one is refused, and what is learned of them."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from classifier.errors import ImageError, ImageTooLargeError
from service.asking import classify
from service.engine.engine import LaneEngine
from service.engine.inline import MAX_BATCH, MAX_BYTES, InlineLine, plain_png_pixels
from service.engine.line import MAX_SURPRISE
from service.errors import OverloadedError
from service.settings import Settings
from tests.classifier.files import chunk
from tests.service.conftest import until
from tests.synthetic import make_bundle, png

COLORS = ("colors", 1)


def with_idle_bytes(image: bytes, size: int) -> bytes:
    """The same PNG, so long, with a palette that nobody asked for."""
    return image[:33] + chunk(b"PLTE", bytes(size - len(image) - 12)) + image[33:]


def line(*, waiting: int = 0, cost_s: float = 1.0) -> InlineLine:
    """Of a model that it asks for nothing but its name."""
    found = InlineLine(SimpleNamespace(key=COLORS), cost_s=cost_s)
    found.waiting.extend([None] * waiting)
    return found


def test_a_tiny_image_needs_the_last_turn_the_rest_of_this_one_and_a_run_of_all():
    """It may have waited in its socket through the one, and waits for the others."""
    tried = line(waiting=2)
    tried.began = 100.0
    tried.end_turn(began=105.0, now=107.0)  # 5 s to read, 7 s in all
    tried.began = 200.0

    # at 201: 7 s of the last turn, 4 s of reading, and three images of 1 s each
    tried.check_deadline(201.0, 201.0 + 14.0)
    with pytest.raises(OverloadedError) as late:
        tried.check_deadline(201.0, 201.0 + 13.9)
    tried.check_deadline(300.0, 300.0 + 10.0)  # nothing is read any more
    with pytest.raises(OverloadedError):
        tried.check_deadline(300.0, 300.0 + 9.9)

    assert late.value.retry_after_s == 2.0


def test_what_an_image_costs_is_learned_from_a_whole_turn():
    """An image of many costs its share."""
    shared, alone = line(), line()

    shared.learn(8.0, 4)
    alone.learn(2.0, 1)

    assert shared.cost_s == alone.cost_s > 1.0


def test_a_turn_in_which_the_machine_stood_still_is_not_believed():
    """Nearly all that comes would be refused after it."""
    stood_still, slow = line(), line()

    stood_still.learn(1e6, 1)
    slow.learn(MAX_SURPRISE, 1)

    assert stood_still.cost_s == slow.cost_s


def test_a_png_that_is_cut_off_is_none_that_the_loop_could_run():
    """A lane finds out what is wrong with it."""
    whole = png((9, 0, 0), (20, 10))

    assert plain_png_pixels(whole) == 200
    assert plain_png_pixels(whole[: -len(chunk(b"IEND", b""))]) is None
    assert plain_png_pixels(b"GIF89a" + whole[6:]) is None


@pytest.fixture
async def engine(tmp_path):
    """An engine whose only model is cheap enough for the event loop."""
    make_bundle(tmp_path, "colors")
    started = LaneEngine(Settings(models=tmp_path))
    await started.start()
    yield started
    await started.close()


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        (png((9, 0, 0), (128, 128)), True),
        (png((9, 0, 0), (129, 128)), False),
        (with_idle_bytes(png((9, 0, 0)), MAX_BYTES), True),
        (with_idle_bytes(png((9, 0, 0)), MAX_BYTES + 1), False),
    ],
)
async def test_what_takes_long_to_decode_goes_to_a_lane(engine, image, taken):
    """Every other request would wait for it."""
    assert engine.inline.submit(COLORS, image, lambda *_: None, deadline=None) == taken


async def test_a_fault_in_an_answer_is_that_of_one(engine):
    """Its mates hear theirs, in the same batch and in the next."""
    loop, faults, told = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, fault: faults.append(fault["exception"]))
    settles = [lambda *_: 1 / 0] + [lambda *_: told.append(1)] * MAX_BATCH
    for settle in settles:
        engine.inline.submit(COLORS, png((9, 0, 0)), settle, deadline=None)

    await until(lambda: len(told) == MAX_BATCH)

    assert [type(fault) for fault in faults] == [ZeroDivisionError]


async def test_a_fault_in_a_batch_does_not_stop_the_next(engine, monkeypatch):
    """Nobody else would look at the images that still wait."""
    loop, faults, told = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, fault: faults.append(fault["exception"]))
    serve = engine.inline._serve

    def fail_once(*given):
        monkeypatch.setattr(engine.inline, "_serve", serve)
        raise MemoryError

    monkeypatch.setattr(engine.inline, "_serve", fail_once)
    for _ in range(MAX_BATCH + 1):
        engine.inline.submit(
            COLORS, png((9, 0, 0)), lambda *_: told.append(1), deadline=None
        )

    await until(lambda: told)

    assert [type(fault) for fault in faults] == [MemoryError]


async def test_a_turn_without_an_image_is_no_fault(engine):
    """There is nothing to learn from it."""
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, fault: faults.append(fault["exception"]))
    whole = png((9, 0, 0))
    broken = whole[:33] + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")

    with pytest.raises(ImageError):
        await classify(engine, COLORS, broken, deadline=None)

    assert faults == []


async def test_a_bad_image_of_a_turn_is_told_so_beside_those_that_run(engine):
    """And how long each phase of the others took."""
    whole, began = png((9, 0, 0)), time.monotonic()
    broken = whole[:33] + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")
    async with asyncio.timeout(20):
        found, refused = await asyncio.gather(
            classify(engine, COLORS, whole, deadline=None),
            classify(engine, COLORS, broken, deadline=None),
            return_exceptions=True,
        )
    spent_ms = 1e3 * (time.monotonic() - began)

    assert isinstance(refused, ImageError)
    timing = found.timing
    phases = timing.decode_ms, timing.queue_ms, timing.batch_ms, timing.infer_ms
    assert all(phase_ms >= 0 for phase_ms in phases)
    assert sum(phases) <= spent_ms


async def test_all_batches_of_a_turn_teach_what_an_image_costs(engine, monkeypatch):
    """As many as wait are run in one turn, and nothing is read meanwhile."""
    turn, once = line(waiting=2 * MAX_BATCH), line()
    monkeypatch.setattr(engine.inline, "_serve", lambda _, cut: (32.0, len(cut)))

    engine.inline._run(turn)
    once.learn(64.0, 2 * MAX_BATCH)

    assert turn.cost_s == once.cost_s


async def test_no_limit_on_pixels_is_passed_by_on_the_event_loop(tmp_path):
    """However small it is set."""
    make_bundle(tmp_path, "colors")
    engine = LaneEngine(Settings(models=tmp_path, max_pixels=100))
    await engine.start()
    try:
        await classify(engine, COLORS, png((9, 0, 0), (10, 10)), deadline=None)
        with pytest.raises(ImageTooLargeError):
            await classify(engine, COLORS, png((9, 0, 0), (11, 10)), deadline=None)
    finally:
        await engine.close()
