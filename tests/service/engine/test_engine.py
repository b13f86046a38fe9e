"""The engine with real threads, real sessions and real images."""

import asyncio
import json
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from classifier import Classifier
from classifier.bundle import load_bundle
from classifier.decode import DEFAULT_LIMITS
from classifier.errors import BundleError, ImageError, SessionError
from classifier.postprocess import probabilities
from classifier.session import Session
from service.asking import classify, classify_decoded, classify_many
from service.contract import ModelKey, Outcome
from service.engine import lanes
from service.engine.decoding import decode_ticket
from service.engine.engine import LaneEngine, _withdraw
from service.engine.inline import MAX_BATCH, InlineLane
from service.engine.models import EngineModel, load_models
from service.engine.ticket import Ticket, build_tickets, decoded
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    EngineFailedError,
    NotReadyError,
    OverloadedError,
)
from service.logs import build_log
from service.settings import Settings
from tests.classifier.files import chunk
from tests.service.conftest import threads_of
from tests.synthetic import SLOW, make_bundle, png

COLORS, ODD = ("colors", 1), ("odd", 1)
LARGE = (300, 300)  # too large for the event loop: goes to a lane
SLOW_LOOPS = 400_000  # about half a second


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles: a well-behaved one and one that fails or dawdles on request."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root, "colors")
    make_bundle(root, "odd", misbehaves=True, slow_loops=SLOW_LOOPS)
    return root


@pytest.fixture
def running(models: Path) -> Callable[..., object]:
    """`async with running(lanes=1) as engine`."""

    @asynccontextmanager
    async def run(**settings: object) -> AsyncIterator[LaneEngine]:
        engine = LaneEngine(Settings(models=models, **settings))
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    return run


@pytest.mark.parametrize("size", [(8, 8), LARGE])
async def test_the_engine_gives_the_logits_of_the_library(running, models, size):
    """On the event loop or in a lane: the same numbers as `Classifier`."""
    library = Classifier.load(models / "colors", threads=1)
    image = png((200, 30, 90), size)
    expected = library.session.run(library.preprocess(image).pixels[None])[0]

    async with running() as engine:
        outcome = await classify(engine, COLORS, image, deadline=None)

    np.testing.assert_array_equal(outcome.logits, expected)


async def test_a_hundred_images_at_once_each_get_their_own_answer(running, models):
    """Nothing is mixed up among requests, lanes and batches."""
    rules = load_bundle(models / "colors").manifest.postprocess
    reds = list(range(0, 200, 2))

    async with running() as engine:
        outcomes = await asyncio.gather(
            *(
                classify(
                    engine,
                    COLORS,
                    png((red, 0, 0), LARGE if red % 4 else (8, 8)),
                    deadline=None,
                )
                for red in reds
            )
        )

    found = [float(outcome.logits[0]) for outcome in outcomes]
    np.testing.assert_allclose(found, [red * 16 / 255 for red in reds], rtol=1e-5)
    expected = probabilities(np.stack([each.logits for each in outcomes]), rules)
    np.testing.assert_allclose([each.scores for each in outcomes], expected, rtol=1e-5)
    assert {each.image.width for each in outcomes} == {8, 300}
    assert max(each.timing.batch_size for each in outcomes) > 1


@pytest.mark.parametrize("size", [(8, 8), LARGE])
async def test_one_bad_image_does_not_disturb_its_neighbors(running, size):
    """Garbage and a poisoned image fail alone; the others are answered."""
    images = [png((10, 0, 0), size), b"garbage", png((255, 0, 0), size)]
    images.append(png((20, 0, 0), size))

    async with running() as engine:
        settled = await classify_many(engine, ODD, images, deadline=None)

    kinds = [type(each) for each in settled]
    assert kinds[0] is kinds[3] is Outcome
    assert isinstance(settled[1], ImageError)
    assert kinds[2] is EngineFailedError


async def test_a_device_that_runs_nothing_any_more_ends_the_process(
    running, monkeypatch
):
    """As after an illegal access on a GPU: no request would be answered again, and
    readiness would be green all the while."""

    def broken(*_):
        raise SessionError("CUDA failure 700")

    async with running() as engine, asyncio.timeout(20):
        monkeypatch.setattr("service.engine.lane.DOUBTED_AFTER_S", 0.0)
        monkeypatch.setattr(Session, "run", broken)
        with pytest.raises(EngineFailedError):
            await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
        await engine.broken()
        trouble = engine.unready()

    assert trouble == "no image can be run any more; the process should be restarted"


async def test_a_failure_inside_the_runtime_is_not_told_to_the_client(running):
    """Its cause is for the log."""
    async with running() as engine:
        with pytest.raises(EngineFailedError) as failed:
            await classify(engine, ODD, png((255, 0, 0)), deadline=None)

    assert "Gather" not in str(failed.value)
    assert "Gather" in str(failed.value.__cause__)


@pytest.mark.parametrize("size", [(8, 8), LARGE])
async def test_a_fault_of_ours_while_decoding_fails_that_image(
    running, monkeypatch, size
):
    """On the event loop or in a lane: it is settled like any other error."""

    def preprocess(*_, **__):
        raise RuntimeError("no room for it")

    async with running() as engine:
        monkeypatch.setattr("service.engine.decoding.preprocess", preprocess)
        with pytest.raises(EngineFailedError) as failed:
            await classify(engine, COLORS, png((9, 9, 9), size), deadline=None)

    assert "no room" in str(failed.value.__cause__)


async def test_a_fault_of_ours_on_the_event_loop_leaves_nobody_waiting(
    running, monkeypatch
):
    """No deadline is looked at there, so nothing else would tell them."""

    def scored(*_):
        raise RuntimeError("no room for them")

    async with running() as engine, asyncio.timeout(20):
        assert COLORS in engine.inline._lines
        monkeypatch.setattr("service.engine.run.scored", scored)
        settled = await asyncio.gather(
            *(
                classify(engine, COLORS, png((red, 0, 0)), deadline=None)
                for red in range(3)
            ),
            return_exceptions=True,
        )

    assert [type(each) for each in settled] == [EngineFailedError] * 3


async def test_no_more_tiny_images_wait_than_the_queue_may_hold(running):
    """On the event loop as in a lane, and the others hear so at once."""
    async with running(queue_capacity=2, max_batch_items=2) as engine:
        assert COLORS in engine.inline._lines
        settled = await asyncio.gather(
            *(
                classify(engine, COLORS, png((red, 0, 0)), deadline=None)
                for red in range(12)
            ),
            return_exceptions=True,
        )

    assert [type(each) for each in settled] == [Outcome] * 2 + [OverloadedError] * 10
    assert all(each.retry_after_s > 0 for each in settled[2:])


async def test_a_tiny_image_that_could_be_late_is_refused_but_never_the_first(running):
    """What is read after a long turn may have waited for as long in its socket. A turn
    that refuses all would teach nothing."""
    loop = asyncio.get_running_loop()

    async def ask_three() -> list[type]:
        soon = loop.time() + 0.2
        asked = (classify(engine, ODD, png((9, 0, 0)), deadline=soon) for _ in "abc")
        settled = await asyncio.gather(*asked, return_exceptions=True)
        return [type(each) for each in settled]

    async with running() as engine, asyncio.timeout(20):
        assert ODD in engine.inline._lines
        await classify(engine, ODD, png((SLOW, 0, 0)), deadline=None)
        after_slow = await ask_three()
        while await ask_three() != [Outcome] * 3:
            pass

    assert after_slow == [Outcome, OverloadedError, OverloadedError]


async def test_a_tiny_image_whose_deadline_passes_in_the_line_is_not_run(running):
    """The batch before it took longer than anybody could know."""
    async with running() as engine:
        soon = asyncio.get_running_loop().time() + 0.2
        settled = await asyncio.gather(
            classify(engine, ODD, png((SLOW, 0, 0)), deadline=None),
            *(
                classify(engine, ODD, png((9, 0, 0)), deadline=None)
                for _ in range(MAX_BATCH - 1)
            ),
            classify(engine, ODD, png((9, 0, 0)), deadline=soon),
            return_exceptions=True,
        )

    assert [type(each) for each in settled[:-1]] == [Outcome] * MAX_BATCH
    assert isinstance(settled[-1], DeadlineExceededError)


async def test_what_is_no_image_teaches_the_event_loop_nothing_of_what_one_costs(
    running,
):
    """A flood of it would have more images accepted than can be answered in time."""
    whole = png((9, 0, 0))
    broken = whole[:33] + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")
    async with running() as engine:
        line = engine.inline._lines[COLORS]
        known_s = line.cost_s
        asked = (
            classify(engine, COLORS, broken, deadline=None)
            for _ in range(2 * MAX_BATCH)
        )
        settled = await asyncio.gather(*asked, return_exceptions=True)
        taught_s = line.cost_s

        await classify(engine, COLORS, whole, deadline=None)

    assert {type(each).__base__ for each in settled} == {ImageError}
    assert taught_s == known_s
    assert line.cost_s != known_s


EXIF = b"II*\0\x08\0\0\0" + bytes(6)  # no entries
AS_TEXT = b"\nexif\n%8d\n%b\n" % (len(EXIF), EXIF.hex().encode())


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"eXIf", EXIF)],
        [(b"tEXt", b"Raw profile type exif\0" + AS_TEXT)],
        [(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(AS_TEXT))],
        [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0")],
        [(b"iCCP", b"profile\0\0" + zlib.compress(bytes(10)))],
        [(b"tIME", bytes(7))] * 20,
    ],
)
async def test_a_tiny_image_with_more_than_pixels_goes_to_a_lane(running, chunks):
    """3 KB of packed text held the event loop for as long as a thousand images."""
    plain = png((200, 30, 90))
    head = 33  # signature and IHDR
    costly = plain[:head] + b"".join(chunk(*each) for each in chunks) + plain[head:]

    async with running() as engine:
        submit = engine.inline.submit
        on_the_loop = [
            submit(COLORS, each, print, deadline=None) for each in (plain, costly)
        ]
        outcome = await classify(engine, COLORS, costly, deadline=None)

    assert on_the_loop == [True, False]
    assert outcome.logits.argmax() == 0


async def test_tiny_images_that_wait_for_the_event_loop_are_queued(running):
    """The metric of what waits would be 0 where the service is fastest."""
    async with running() as engine:
        asked = [
            asyncio.create_task(classify(engine, COLORS, png((9, 0, 0)), deadline=None))
            for _ in range(3)
        ]
        await asyncio.sleep(0)  # they ask, and the loop has not turned since
        queued = engine.queued(COLORS), engine.queued(ODD)
        await asyncio.gather(*asked)
        left = engine.queued(COLORS)

    assert (queued, left) == ((3, 0), 0)


async def test_a_full_queue_refuses_at_once(running):
    """The first images are at work, the next wait, the rest hear 503 at once."""
    slow = png((SLOW, 0, 0), LARGE)

    async with running(queue_capacity=2, max_batch_items=2) as engine:
        asked = [
            asyncio.create_task(classify(engine, ODD, slow, deadline=None))
            for _ in range(12)
        ]
        settled = await asyncio.gather(*asked, return_exceptions=True)

    refused = [each for each in settled if isinstance(each, OverloadedError)]
    answered = [each for each in settled if isinstance(each, Outcome)]
    assert len(refused) + len(answered) == 12
    assert refused
    assert all(each.retry_after_s > 0 for each in refused)


async def test_an_image_that_waits_past_its_deadline_is_dropped(running):
    """Its sender hears so, and it is never run."""
    slow = png((SLOW, 0, 0), LARGE)

    async with running() as engine:
        busy = [
            asyncio.create_task(classify(engine, ODD, slow, deadline=None))
            for _ in range(40)  # both lanes, and a line behind them
        ]
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceededError):
            await classify(
                engine, ODD, png((1, 0, 0), LARGE), deadline=time.monotonic() + 0.05
            )
        for task in busy:
            task.cancel()


async def test_a_sender_that_leaves_frees_its_place_and_disturbs_nobody(running):
    """Cancelled requests are skipped before they are decoded."""
    slow = png((SLOW, 0, 0), LARGE)

    async with running() as engine:
        asked = [
            asyncio.create_task(classify(engine, ODD, slow, deadline=None))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        outcome = await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
        left = engine.queued(ODD)

    assert isinstance(outcome, Outcome)
    assert left < 20


async def test_a_sender_that_leaves_takes_its_bytes_along(running):
    """They are counted no longer, so they must not wait for a lane in memory."""
    slow = png((SLOW, 0, 0), LARGE)

    async with running(lanes=1, batch=1) as engine:
        asked = [
            asyncio.create_task(classify(engine, ODD, slow, deadline=None))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        waiting = list(engine._backlog._lines[ODD].singles)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    assert len(waiting) >= 19
    assert {ticket.data for ticket in waiting} == {b""}


async def test_a_sender_that_leaves_while_its_image_is_decoded_hears_nothing(
    running, monkeypatch
):
    """That its bytes are gone just then is not an error of the image."""
    left, settled = png((1, 1, 1), LARGE), []

    def leave(ticket, *given, **named):
        if ticket.data == left:
            _withdraw([ticket])
        return decode_ticket(ticket, *given, **named)

    monkeypatch.setattr("service.engine.lane.decode_ticket", leave)
    async with running(lanes=1) as engine:
        engine.submit(
            COLORS,
            [left],
            deadline=None,
            settle=lambda _, fate: settled.append(fate),
        )
        outcome = await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)

    assert isinstance(outcome, Outcome)
    assert settled == []


async def test_pixels_give_the_logits_of_the_image_that_they_are_of(running, models):
    """Who has preprocessed already is served by the same queue and the same runs."""
    library = Classifier.load(models / "colors", threads=1)
    images = [png((200, 30, 90), LARGE), png((1, 2, 3), LARGE)]
    pixels = [library.preprocess(image).pixels for image in images]

    async with running() as engine:
        by_image = await classify_many(engine, COLORS, images, deadline=None)
        by_pixels = await classify_decoded(engine, COLORS, pixels, deadline=None)

    for one, other in zip(by_image, by_pixels, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


async def test_a_sender_that_leaves_takes_its_pixels_along(running):
    """They are a view of the request's body, and that is counted no longer."""
    slow = np.full((8, 8, 3), SLOW, np.uint8)

    async with running(lanes=1, batch=1) as engine:
        withdraw = engine.submit_decoded(
            ODD, [slow] * 20, deadline=None, settle=lambda *_: None
        )
        (waiting,) = engine._backlog._lines[ODD].requests
        waiting = list(waiting)
        withdraw()
        left = [ticket.ready.pixels for ticket in waiting]
        outcome = await classify(engine, COLORS, png((9, 9, 9)), deadline=None)

    assert len(waiting) >= 19
    # a lane that reads them just now finds the shape that it expects
    assert {pixels.shape for pixels in left} == {slow.shape}
    assert not any(np.shares_memory(pixels, slow) for pixels in left)
    assert isinstance(outcome, Outcome)


def waiting_ticket(settled: list[object]) -> Ticket:
    """One that was decoded ahead, whose sender notes what it is told."""
    (ticket,) = build_tickets(
        Ticket,
        COLORS,
        [b""],
        deadline=None,
        settle=lambda _, fate: settled.append(fate),
        explain=False,
    )
    ticket.ready = decoded(np.zeros((8, 8, 3), np.uint8))
    return ticket


async def test_what_was_decoded_when_there_is_no_lane_any_more_is_told_so(running):
    """Else it would wait for one until its deadline."""
    settled = []
    async with running() as engine:
        engine._lanes.trouble = "no lane is alive"
        engine._decoded([waiting_ticket(settled)], {})

    assert [type(fate) for fate in settled] == [NotReadyError]


async def test_what_was_decoded_for_a_sender_that_has_left_takes_no_place(
    running, monkeypatch
):
    """Nor does what could not be decoded, whose sender hears so once."""
    settled, offered, error = [], [], EngineFailedError("no room for it")
    async with running() as engine:
        monkeypatch.setattr(engine, "_offer", offered.extend)
        left, failed, whole = (waiting_ticket(settled) for _ in range(3))
        left.abandon()
        engine._decoded([left, failed, whole], {failed: error})

    assert offered == [whole]
    assert settled == [error]


async def test_as_many_lanes_wake_up_as_images_have_come(running, monkeypatch):
    """One would run them one after the other, beside lanes that are free."""
    both = threading.Barrier(2, timeout=10)

    def decode(*given, **named):
        both.wait()
        return decode_ticket(*given, **named)

    images = [png((9, 0, 0), LARGE)] * 2
    async with running(lanes=2, batch=1) as engine:
        monkeypatch.setattr("service.engine.lane.decode_ticket", decode)
        settled = await classify_many(engine, COLORS, images, deadline=None)

    assert [type(fate) for fate in settled] == [Outcome] * 2


async def test_pixels_that_come_after_the_end_are_refused(running):
    """There is no lane any more, and their sender would wait for one."""
    async with running() as engine:
        await engine.close()
        with pytest.raises(DrainingError):
            engine.submit_decoded(
                COLORS,
                [np.zeros((8, 8, 3), np.uint8)],
                deadline=None,
                settle=lambda *_: None,
            )


async def test_with_half_of_the_lanes_answers_take_twice_as_long(running):
    """The others are left to other processes, and by that clients are told to wait."""
    async with running(lanes=2) as engine:
        with_two_s = engine.image_s(COLORS)
        engine.limit_lanes(1)
        lanes, with_one_s = len(engine._lanes._lanes), engine.image_s(COLORS)

    assert lanes == 1
    assert with_one_s == pytest.approx(2 * with_two_s)


async def test_a_model_is_served_as_it_was_arranged(models, monkeypatch):
    """Lanes are as many as the model needs that needs most."""
    one, other = load_models(Settings(models=models), device="cpu")
    crowd = replace(one.arrangement.crowd, batch=8, gentle_batch=2)
    found = [
        replace(
            one, arrangement=replace(one.arrangement, lanes=3, crowd=crowd, abreast=5)
        ),
        replace(other, arrangement=replace(other.arrangement, lanes=1)),
    ]
    monkeypatch.setattr("service.engine.engine.load_models", lambda *_, **__: found)
    engine = LaneEngine(Settings(models=models))
    await engine.start()
    lanes, line = len(engine._lanes._lanes), engine._backlog._lines[COLORS]
    await engine.close()

    assert lanes == engine._backlog.lanes == 3
    assert (line.best_batch, line.gentle_batch, line.abreast) == (8, 2, 5)


async def test_a_lane_that_hangs_is_replaced_and_its_images_fail(running):
    """Others are served by the new lane while the old one is left behind."""
    async with running(hang_timeout_s=0.05) as engine:
        with pytest.raises(EngineFailedError, match="in time"):
            await classify(engine, ODD, png((SLOW, 0, 0), LARGE), deadline=None)
        outcome = await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
        await asyncio.to_thread(time.sleep, 1.0)  # the lost run ends before the test

    assert isinstance(outcome, Outcome)


async def test_when_too_many_lanes_hang_the_process_is_no_longer_ready(running):
    """Each is left behind with its memory and its core; then only a restart helps."""
    async with running(hang_timeout_s=0.02, lanes=2, batch=1) as engine:
        for _ in range(3):
            with pytest.raises(EngineFailedError, match="in time"):
                await classify(engine, ODD, png((SLOW, 0, 0), LARGE), deadline=None)
        reason = engine.unready()
        with pytest.raises(NotReadyError, match="restarted"):
            await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
        await asyncio.to_thread(time.sleep, 1.0)  # the lost runs end before the test

    assert reason == "3 lanes hang; the process should be restarted"


async def test_a_lane_that_dies_is_replaced_and_its_images_fail(running, monkeypatch):
    """A fault of ours in one lane costs the images it held, and no more."""
    async with running() as engine:
        broken = engine._lanes._lanes[0]
        for lane in engine._lanes._lanes:
            monkeypatch.setattr(lane, "_decode", lambda *_: 1 / 0)
        with pytest.raises(EngineFailedError, match="died"):
            await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
        monkeypatch.undo()
        outcome = await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)

    assert isinstance(outcome, Outcome)
    assert broken.thread.name.startswith("lane")


async def test_what_becomes_of_lanes_is_logged_like_everything_else(
    models, monkeypatch
):
    """As the settings say, and not past them."""
    settings, stream = Settings(models=models, log_format="json"), StringIO()
    engine = LaneEngine(settings, log=build_log(settings, stream))
    await engine.start()
    threads = threads_of(engine._lanes)
    for lane in engine._lanes._lanes:
        monkeypatch.setattr(lane, "_decode", lambda *_: 1 / 0)
    with pytest.raises(EngineFailedError, match="died"):
        await classify(engine, COLORS, png((9, 9, 9), LARGE), deadline=None)
    await engine.close()
    for thread in threads:
        thread.join()

    line = json.loads(stream.getvalue().splitlines()[-1])
    assert (line["event"], line["level"]) == ("lane died", "error")
    assert "ZeroDivisionError" in str(line["exception"])


async def test_closing_finishes_what_runs_and_tells_everybody_else(
    running, monkeypatch
):
    """Nobody is left without an answer, and who comes later is refused."""
    monkeypatch.setattr(lanes, "JOIN_S", 60)  # for the runs, on a busy machine too
    async with running() as engine:
        asked = [
            asyncio.create_task(
                classify(engine, ODD, png((SLOW, 0, 0), LARGE), deadline=None)
            )
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        await engine.close()
        settled = await asyncio.gather(*asked, return_exceptions=True)
        with pytest.raises(DrainingError):
            await classify(engine, COLORS, png((1, 2, 3)), deadline=None)

    assert len(settled) == 20
    assert {DrainingError} <= {type(e) for e in settled} <= {Outcome, DrainingError}


async def test_readiness_waits_for_the_models(models):
    """Not ready before start, nor after the end."""
    engine = LaneEngine(Settings(models=models))
    before = engine.unready()
    await engine.start()
    while_up = engine.unready()
    await engine.close()
    after = engine.unready()

    assert (before is None, while_up is None, after is None) == (False, True, False)


async def test_the_device_is_logged_with_the_reason_for_it(models):
    """Once, at the start: whoever wonders why it is slow looks there."""
    settings = Settings(models=models, device="cpu", log_format="json")
    stream = StringIO()
    engine = LaneEngine(settings, log=build_log(settings, stream))
    await engine.start()
    await engine.close()

    line = json.loads(stream.getvalue())
    assert line["event"] == "device"
    assert (line["device"], line["reason"]) == ("cpu", "the CPU was asked for")


async def test_a_process_serves_the_graphs_that_its_leader_has_chosen(repository):
    """By the clock each could choose another, and connections would get any."""
    chosen = {}
    for precision in ("int8", "fp32"):
        settings = Settings(models=repository / "models", load=("digits",))
        engine = LaneEngine(settings, precisions={"digits/1": precision})
        await engine.start()
        (loaded,) = engine.loaded
        chosen[precision] = loaded.precision
        await engine.close()

    assert chosen == {"int8": "int8", "fp32": "fp32"}


def costing(model: EngineModel, cost_s: float) -> EngineModel:
    """The same model, as if a lone image took so long."""
    arrangement = replace(model.arrangement, narrow_s=cost_s)
    return replace(model, arrangement=arrangement)


async def test_http_is_the_limit_only_if_every_model_is_cheap(models):
    """One that keeps the cores busy is not loaded once a core for a tiny one's sake."""
    one, other = load_models(Settings(models=models), device="cpu")
    cheap, dear = costing(one, 1e-5), costing(other, 0.1)
    loop = asyncio.get_running_loop()

    lane = partial(InlineLane, loop=loop, limits=DEFAULT_LIMITS, capacity=1)
    alone = lane({cheap.key: cheap})
    beside = lane({cheap.key: cheap, dear.key: dear})

    def takes(lane: InlineLane, key: ModelKey) -> bool:
        return lane.submit(key, png((9, 9, 9)), lambda *_: None, deadline=None)

    assert takes(alone, cheap.key)
    assert takes(beside, cheap.key)
    assert not takes(beside, dear.key)
    assert (alone.serves_all, beside.serves_all) == (True, False)


async def test_no_thread_is_left_after_close(models):
    """Lanes end with their engine."""
    engine = LaneEngine(Settings(models=models))
    await engine.start()
    threads = threads_of(engine._lanes)

    await engine.close()

    assert not any(thread.is_alive() for thread in threads)


async def test_an_engine_that_has_not_started_can_be_closed(models):
    """Nothing but what kept it from starting is to be told then."""
    assert await LaneEngine(Settings(models=models)).close() == 0


async def test_a_broken_bundle_stops_the_start(tmp_path):
    """Better no service than one that answers wrong."""
    folder = make_bundle(tmp_path, "colors")
    with (folder / "model.onnx").open("ab") as graph_file:
        graph_file.write(b"more")

    with pytest.raises(BundleError, match="SHA-256"):
        await LaneEngine(Settings(models=tmp_path)).start()


async def test_an_empty_models_folder_stops_the_start(tmp_path):
    """It says where bundles are expected."""
    with pytest.raises(BundleError, match="NAME/VERSION"):
        await LaneEngine(Settings(models=tmp_path)).start()
