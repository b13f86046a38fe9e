"""A front-end and the engine's process, both real, in one event loop."""

import asyncio
import os
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from classifier import Classifier
from classifier.errors import ImageError
from service.asking import classify, classify_decoded, classify_many
from service.contract import Outcome
from service.engine.ahead import STUCK
from service.engine.decoding import decode_ticket
from service.engine.engine import LaneEngine
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    EngineFailedError,
    EngineUnreachableError,
    NotReadyError,
    OverloadedError,
)
from service.problems import problem_of
from service.settings import Settings
from service.shared.front import GONE, SharedEngine
from service.shared.host import Host
from service.shared.slots import Slots, open_memory, slot_bytes
from tests.classifier.test_classifier import two_graphs
from tests.service.closing import close_while_decoding
from tests.service.conftest import until
from tests.synthetic import SLOW, make_bundle, png

COLORS, ODD = ("colors", 1), ("odd", 1)
SLOW_LOOPS = 200_000


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that explains, and one that fails or dawdles on request."""
    root = tmp_path_factory.mktemp("models")
    make_bundle(root, "colors", class_maps=True)
    make_bundle(root, "odd", misbehaves=True, slow_loops=SLOW_LOOPS)
    return root


@pytest.fixture
def shared(models: Path, tmp_path: Path) -> Callable[..., object]:
    """`async with shared(slots=4, lanes=1) as pair`: pair.engine, .host, .front."""

    @asynccontextmanager
    async def run(
        *, slots: int = 16, **settings: object
    ) -> AsyncIterator[SimpleNamespace]:
        settings_ = Settings(models=models, **settings)
        engine = LaneEngine(settings_)
        await engine.start()
        size = slot_bytes(loaded.manifest for loaded in engine.loaded)
        descriptor = open_memory(slots * size)
        path = tmp_path / "engine"
        host = Host(engine, path, {1: Slots.of(descriptor, size)})
        await host.open()
        front = SharedEngine(
            settings_, number=1, path=path, slots=Slots.of(descriptor, size), threads=2
        )
        os.close(descriptor)
        await front.start()
        try:
            yield SimpleNamespace(engine=engine, host=host, front=front)
        finally:
            await front.close()
            await host.close()
            await engine.close()

    return run


def free(pair: SimpleNamespace) -> int:
    """Slots that nothing holds."""
    return len(pair.front._underway.free)


async def test_a_front_end_gives_the_outcome_of_the_library(shared, models):
    """Scores, size and format, as if it had an engine of its own."""
    library = Classifier.load(models / "colors", threads=1)
    image = png((200, 30, 90), (40, 20))
    logits = library.session.run(library.preprocess(image).pixels[None])

    async with shared() as pair:
        outcome = await classify(pair.front, COLORS, image, deadline=None)
        loaded = [each.manifest.name for each in pair.front.loaded]

    np.testing.assert_array_equal(outcome.logits, logits[0])
    np.testing.assert_array_equal(
        outcome.scores, library.postprocessor.scores(logits)[0]
    )
    assert (outcome.image.width, outcome.image.height) == (40, 20)
    assert outcome.image.format == "PNG"
    assert outcome.timing.decode_ms > 0
    assert loaded == ["colors", "odd"]


async def test_a_front_end_warns_of_what_an_engine_warns_of(shared):
    """Of frames that were left out, for one."""
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    stream = BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])

    async with shared() as pair:
        own, there = [
            await classify(each, COLORS, stream.getvalue(), deadline=None)
            for each in (pair.engine, pair.front)
        ]

    assert own.warnings
    assert there.warnings == own.warnings


async def test_a_front_end_tells_of_the_graphs_that_the_engine_has(tmp_path):
    """`/models` of any process names precision and device that answer."""
    folder = two_graphs(tmp_path / "two", passed=True)
    settings = Settings(models=folder.parents[1], precision="int8")
    engine = LaneEngine(settings)
    await engine.start()
    size = slot_bytes(loaded.manifest for loaded in engine.loaded)
    memory = open_memory(4 * size)
    slots = Slots.of(memory, size)
    os.close(memory)
    host = Host(engine, tmp_path / "engine", {1: slots})
    await host.open()
    front = SharedEngine(
        settings, number=1, path=tmp_path / "engine", slots=slots, threads=1
    )
    await front.start()
    try:
        told = [(m.precision, m.device, m.explains) for m in front.loaded]
        image_s = front._underway.image_s
        engine_s = {key: engine.image_s(key) for key in image_s}
    finally:
        await front.close()
        await host.close()
        await engine.close()

    assert told == [(m.precision, m.device, m.explains) for m in engine.loaded]
    assert [precision for precision, _, _ in told] == ["int8"]
    assert image_s == pytest.approx(engine_s, rel=0.5)
    assert min(image_s.values()) > 0


async def test_an_outcome_stays_when_its_slot_is_used_again(shared):
    """An answer may be written much later, and belongs to one client."""
    async with shared(slots=1) as pair:
        first = await classify(pair.front, COLORS, png((16, 0, 0)), deadline=None)
        was = first.logits.copy(), first.scores.copy()
        await classify(pair.front, COLORS, png((200, 30, 90)), deadline=None)

    np.testing.assert_array_equal(first.logits, was[0])
    np.testing.assert_array_equal(first.scores, was[1])


async def test_a_slot_that_was_used_is_used_again_first(shared):
    """Its memory is there already; the others cost none until somebody needs them."""
    async with shared() as pair:
        for red in range(1, 9):
            await classify(pair.front, COLORS, png((red, 0, 0)), deadline=None)
        used = [n for n in range(16) if pair.front._slots.pixels(n, (8, 8, 3)).any()]

    assert len(used) == 1


async def test_a_front_end_whose_decoders_hang_is_not_ready(shared, monkeypatch):
    """Until it is gone: its port is open, and nobody would have an answer."""
    goes_on = threading.Event()

    def hang(*_: object, **__: object) -> None:
        goes_on.wait(20)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", hang)
    try:
        async with shared(hang_timeout_s=0.2) as pair:
            asked = asyncio.create_task(
                classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
            )
            async with asyncio.timeout(10):
                await pair.front.broken()
            reason = pair.front.unready()
            goes_on.set()
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
    finally:
        goes_on.set()

    assert reason == STUCK


async def test_the_phases_of_an_image_add_up_to_its_time(shared):
    """Also where two processes share the work: the way between them is waiting."""
    async with shared() as pair:
        outcome = await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
        spent_s = pair.front._underway.spent_s[COLORS, False]

    timing = outcome.timing
    phases_ms = timing.decode_ms + timing.queue_ms + timing.batch_ms + timing.infer_ms
    assert phases_ms == pytest.approx(1e3 * spent_s)
    assert timing.queue_ms > 0


async def test_many_at_once_each_get_their_own_and_every_slot_comes_back(shared):
    """More requests than slots, in turn."""
    async with shared() as pair:
        for start in range(0, 64, 16):
            outcomes = await asyncio.gather(
                *(
                    classify(pair.front, COLORS, png((red, 0, 0)), deadline=None)
                    for red in range(start, start + 16)
                )
            )
            found = [float(outcome.logits[0]) for outcome in outcomes]
            expected = [red * 16 / 255 for red in range(start, start + 16)]
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert free(pair) == 16


@pytest.mark.parametrize(
    ("models", "size"),
    [
        ([((8, 8, 3), 2)], 192),
        ([((5, 5, 3), 2)], 128),  # 75 bytes, and on to the next cache line
        ([((1, 1, 1), 100)], 832),  # 100 logits and 100 scores of 4 bytes
        ([((8, 8, 3), 2), ((1, 1, 1), 2)], 192),
    ],
)
def test_a_slot_has_room_for_the_pixels_and_the_scores_of_every_model(models, size):
    """Else an image would reach into that of another request."""
    manifests = [
        SimpleNamespace(preprocess=SimpleNamespace(shape=shape), logits=logits)
        for shape, logits in models
    ]

    assert slot_bytes(manifests) == size


async def test_each_front_end_has_a_memory_of_its_own(shared):
    """One would read the scores of another's images."""
    async with shared() as pair:
        size = slot_bytes(loaded.manifest for loaded in pair.engine.loaded)
        descriptor = open_memory(16 * size)
        pair.host._memories[2] = Slots.of(descriptor, size)
        other = SharedEngine(
            pair.front._settings,
            number=2,
            path=pair.front._path,
            slots=Slots.of(descriptor, size),
            threads=1,
        )
        os.close(descriptor)
        await other.start()
        outcomes = await asyncio.gather(
            *(
                classify(front, COLORS, png((red, 0, 0)), deadline=None)
                for red in range(8)
                for front in (pair.front, other)
            )
        )
        await other.close()

    found = [float(outcome.logits[0]) for outcome in outcomes]
    expected = [red * 16 / 255 for red in range(8) for _ in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


async def test_one_bad_image_does_not_disturb_its_neighbors(shared):
    """One that cannot be decoded here, and one that fails over there."""
    images = [png((10, 0, 0)), b"garbage", png((255, 0, 0)), png((20, 0, 0))]

    async with shared() as pair:
        settled = await classify_many(pair.front, ODD, images, deadline=None)
        assert free(pair) == 16

    kinds = [type(each) for each in settled]
    assert kinds[0] is kinds[3] is Outcome
    assert isinstance(settled[1], ImageError)
    assert kinds[2] is EngineFailedError
    assert "Gather" in str(settled[2])  # for the log here; no client sees it


async def test_an_explanation_comes_through(shared, models):
    """Class maps, as the library has them."""
    library = Classifier.load(models / "colors", threads=1)
    pixels = library.preprocess(png((200, 30, 90))).pixels[None]
    _, maps = library.session.run_with_class_maps(pixels)

    async with shared() as pair:
        outcome = await classify(
            pair.front, COLORS, png((200, 30, 90)), deadline=None, explain=True
        )

    np.testing.assert_array_equal(outcome.class_maps, maps[0])


async def test_without_a_free_slot_a_request_is_refused_at_once(shared):
    """The memory is the bound."""
    slow = png((SLOW, 0, 0))
    async with shared(slots=2) as pair:
        asked = [
            asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
            for _ in range(3)
        ]
        settled = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(each) for each in settled] == [Outcome, Outcome, OverloadedError]


async def test_a_flood_of_singles_leaves_room_for_batches_and_for_another_model(
    shared, monkeypatch
):
    """In a front-end as in the engine; the slots are enough for all of them."""
    go_on = threading.Event()

    def held(*given, **named):
        go_on.wait(20)
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    image, fates = png((9, 9, 9)), []

    def submit(key: tuple[str, int], images: int) -> None:
        pair.front.submit(
            key,
            [image] * images,
            deadline=None,
            settle=lambda _, fate: fates.append(type(fate)),
        )

    async with shared(slots=16, queue_capacity=4, max_batch_items=4) as pair:
        for _ in range(4):
            submit(COLORS, 1)
        said = "4 images for colors are under way; of 1 more there is room for 0"
        with pytest.raises(OverloadedError, match=said):
            submit(COLORS, 1)
        submit(COLORS, 4)
        submit(ODD, 1)
        submit(ODD, 3)
        go_on.set()
        await until(lambda: len(fates) == 12)
        assert free(pair) == 16

    assert fates == [Outcome] * 12


async def test_a_single_is_decoded_before_the_batch_items_that_wait(
    shared, monkeypatch
):
    """Also in a front-end, which has the queue where decoding is what is slow."""
    go_on, order = threading.Event(), []

    def held(ticket, *given, **named):
        order.append(ticket.request)
        go_on.wait(20)
        return decode_ticket(ticket, *given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    image = png((9, 9, 9))
    async with shared() as pair:
        batch = asyncio.create_task(
            classify_many(pair.front, COLORS, [image] * 8, deadline=None)
        )
        await until(lambda: len(order) == 2)  # one in each decoder
        single = asyncio.create_task(classify(pair.front, COLORS, image, deadline=None))
        await until(lambda: free(pair) == 7)
        go_on.set()
        await asyncio.gather(batch, single)

    assert order[2] is None


async def test_what_the_engine_refuses_the_front_end_refuses(shared):
    """A full queue over there, with its Retry-After."""
    slow = png((SLOW, 0, 0))
    async with shared(queue_capacity=1, max_batch_items=1, lanes=1) as pair:
        asked = [
            asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
            for _ in range(8)
        ]
        settled = await asyncio.gather(*asked, return_exceptions=True)
        assert free(pair) == 16

    refused = [each for each in settled if isinstance(each, OverloadedError)]
    assert refused
    assert {type(each) for each in settled} == {Outcome, OverloadedError}
    assert all(each.retry_after_s > 0 for each in refused)


async def test_a_refusal_by_the_engine_comes_back_as_what_it_is(shared):
    """The front-end had room, and knows of nothing."""
    async with shared() as pair:
        await pair.engine.close()
        assert pair.front.unready() is None
        with pytest.raises(DrainingError):
            await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
        assert free(pair) == 16


async def test_a_front_end_decodes_no_more_pixels_than_are_allowed(shared):
    """It has the decoders, so it has the bound."""
    async with shared(max_pixels=40 * 20 - 1) as pair:
        with pytest.raises(ImageError, match="pixels"):
            await classify(pair.front, COLORS, png((9, 9, 9), (40, 20)), deadline=None)


async def test_a_full_front_end_says_how_long_the_engine_needs(shared):
    """For the images that it holds, though its decoders have nothing to do."""
    slow = png((SLOW, 0, 0))
    async with shared(queue_capacity=4, max_batch_items=4, lanes=1) as pair:
        pair.front._underway.image_s[ODD] = 10.0
        asked = [
            asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
            for _ in range(5)
        ]
        *answered, refused = await asyncio.gather(*asked, return_exceptions=True)

        assert refused.retry_after_s == 4 * 10.0
        first_s = pair.front._underway.spent_s[ODD, False]
        pair.front._underway.image_s[ODD] = 0.0
        assert pair.front._underway.drained_s((ODD, False)) == first_s > 0

    assert {type(each) for each in answered} == {Outcome}


async def test_a_full_front_end_says_how_long_its_decoders_need(shared, monkeypatch):
    """Where those are what is slow, and nothing was answered yet."""
    go_on = threading.Event()

    def held(*given, **named):
        go_on.wait(20)
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    async with shared(queue_capacity=4, max_batch_items=4) as pair:
        pair.front._underway.image_s[COLORS] = 0.0
        asked = [
            asyncio.create_task(
                classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
            )
            for _ in range(5)
        ]
        (refused, *_), _ = await asyncio.wait(asked, return_when="FIRST_COMPLETED")
        go_on.set()
        await asyncio.gather(*asked, return_exceptions=True)

    assert refused.exception().retry_after_s > 0


async def test_what_the_decoders_refuse_holds_no_slot(shared, monkeypatch):
    """They could not keep its deadline, behind those that wait."""
    go_on, fates, image = threading.Event(), [], png((9, 9, 9))

    def held(*given, **named):
        go_on.wait(20)
        return decode_ticket(*given, **named)

    def submit(images: int, deadline: float | None) -> None:
        pair.front.submit(
            COLORS,
            [image] * images,
            deadline=deadline,
            settle=lambda _, fate: fates.append(type(fate)),
        )

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    async with shared() as pair:
        submit(4, None)
        with pytest.raises(OverloadedError):
            submit(3, time.monotonic())
        left = free(pair), pair.front._underway.room_for((COLORS, True))
        go_on.set()
        await until(lambda: len(fates) == 4)

    assert left == (12, 12)
    assert fates == [Outcome] * 4


async def test_a_deadline_holds_over_there(shared):
    """Both processes have one monotonic clock."""
    async with shared(lanes=1, batch=1) as pair:
        first = asyncio.create_task(
            classify(pair.front, ODD, png((SLOW, 0, 0)), deadline=None)
        )
        await until(lambda: pair.engine._backlog.busy == 1)
        with pytest.raises((DeadlineExceededError, OverloadedError)):
            await classify(
                pair.front, ODD, png((1, 0, 0)), deadline=time.monotonic() + 0.02
            )
        await first


async def test_a_client_that_leaves_frees_its_slots_and_its_place(shared):
    """Withdrawn over there as well, and the slots come back soon."""
    slow = png((SLOW, 0, 0))
    async with shared(lanes=1, batch=1) as pair:
        first = asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
        await until(lambda: pair.engine._backlog.busy == 1)
        others = [
            asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
            for _ in range(10)
        ]
        await until(lambda: pair.engine.queued(ODD) == 10)
        waiting = list(pair.engine._backlog._lines[ODD].singles)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await until(lambda: free(pair) == 15)
        assert all(ticket.abandoned for ticket in waiting)
        outcome = await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
        await first
        (front_end,) = pair.host._front_ends.values()
        assert not front_end._requests  # a result would go into the slot of another

    assert isinstance(outcome, Outcome)


async def test_a_withdrawn_slot_stays_taken_while_a_result_may_come(shared):
    """It would be written over the pixels of whoever had the slot next."""
    slow = png((SLOW, 0, 0))
    async with shared(slots=1, lanes=1) as pair:
        first = asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
        await until(lambda: pair.engine._backlog.busy == 1)
        (link,) = pair.host._front_ends
        link._transport.pause_reading()  # that process has other things to do
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        with pytest.raises(OverloadedError):
            await classify(pair.front, COLORS, png((200, 0, 0)), deadline=None)
        await until(lambda: free(pair) == 1)  # the result has come, for nobody
        link._transport.resume_reading()
        outcome = await classify(pair.front, COLORS, png((200, 0, 0)), deadline=None)
        assert list(pair.front._underway.free) == [0]

    np.testing.assert_allclose(outcome.logits[0], 200 * 16 / 255, rtol=1e-5)


async def test_a_sender_that_leaves_takes_its_bytes_along(shared, monkeypatch):
    """They are counted no longer, so they must not wait for a decoder in memory."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop, fates = asyncio.get_running_loop(), []

    def held(*given, **named):
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(20)
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    async with shared() as pair:
        withdraw = pair.front.submit(
            COLORS,
            [png((9, 9, 9))] * 4,
            deadline=None,
            settle=lambda _, fate: fates.append(fate),
        )
        await begun.wait()
        (request,) = set(pair.front._ahead._requests.values())
        withdraw()
        left = {ticket.data for ticket in request.tickets}
        go_on.set()
        await until(lambda: free(pair) == 16)

        number = next(pair.front._underway._numbers)

    assert left == {b""}
    assert fates == []
    assert number == 1  # nothing was sent to the engine


async def test_what_waits_for_a_decoder_is_counted_and_timed_as_waiting(
    shared, monkeypatch
):
    """On a GPU that is the queue that matters, and the engine over there knows nothing
    of it."""
    go_on = threading.Event()

    def held(*given, **named):
        go_on.wait(20)
        return decode_ticket(*given, **named)

    monkeypatch.setattr("service.engine.ahead.decode_ticket", held)
    async with shared() as pair:  # with two decoders
        began = time.monotonic()
        asked = [
            asyncio.create_task(classify(pair.front, COLORS, image, deadline=None))
            for image in [png((9, 9, 9))] * 5
        ]
        await until(lambda: free(pair) == 11)
        waiting_since = time.monotonic()
        queued = pair.front.queued(COLORS), pair.front.queued(ODD)
        await asyncio.sleep(0.05)
        held_ms = 1e3 * (time.monotonic() - waiting_since)
        go_on.set()
        outcomes = await asyncio.gather(*asked)
        spent_ms = 1e3 * (time.monotonic() - began)
        left = pair.front.queued(COLORS)

    phases = [
        (t.decode_ms, t.queue_ms, t.batch_ms, t.infer_ms)
        for t in (outcome.timing for outcome in outcomes)
    ]
    assert (queued, left) == ((5, 0), 0)
    assert all(held_ms <= sum(each) <= spent_ms for each in phases)
    assert sum(queue_ms >= held_ms for _, queue_ms, _, _ in phases) >= 3


async def test_bytes_go_with_their_sender_also_from_the_engine(shared):
    """Those of an image that was answered, and of one that is run just now."""
    images, answered = [png((1, 0, 0)), png((SLOW, 0, 0))], []
    async with shared(lanes=1, batch=1) as pair:
        withdraw = pair.front.submit(
            ODD, images, deadline=None, settle=lambda place, _: answered.append(place)
        )
        await until(lambda: answered == [0])
        (request,) = pair.front._underway.requests.values()
        withdraw()
        left = {ticket.data for ticket in request.sent}

    assert left == {b""}


async def test_every_slot_of_a_withdrawn_request_comes_back_once(shared):
    """Of the image that was answered by then, and of those that were not."""
    images = [png((1, 0, 0)), png((SLOW, 0, 0)), png((SLOW, 0, 0))]
    answered = []
    async with shared(lanes=1, batch=1) as pair:
        withdraw = pair.front.submit(
            ODD, images, deadline=None, settle=lambda place, _: answered.append(place)
        )
        await until(lambda: answered == [0])
        withdraw()
        assert free(pair) == 14
        await until(lambda: free(pair) == 16)
        await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)
        assert sorted(pair.front._underway.free) == list(range(16))
        assert not pair.front._underway.requests

    assert answered == [0]


async def test_a_withdrawn_slot_comes_back_also_when_the_engine_ends(shared):
    """Its last word is never said then."""
    async with shared(lanes=1) as pair:
        withdraw = pair.front.submit(
            ODD, [png((SLOW, 0, 0))], deadline=None, settle=lambda *_: None
        )
        await until(lambda: pair.engine._backlog.busy == 1)
        withdraw()
        assert free(pair) == 15
        pair.front._link._transport.abort()
        await until(lambda: free(pair) == 16)


async def test_a_front_end_that_dies_takes_only_its_own_requests_along(shared):
    """What waits over there for nobody is not run."""
    slow = png((SLOW, 0, 0))
    async with shared(lanes=1, batch=1) as pair:
        asked = [
            asyncio.create_task(classify(pair.front, ODD, slow, deadline=None))
            for _ in range(8)
        ]
        await until(lambda: pair.engine.queued(ODD) + pair.engine._backlog.busy == 8)
        pair.front._link._transport.abort()
        settled = await asyncio.gather(*asked, return_exceptions=True)
        waiting = list(pair.engine._backlog._lines[ODD].singles)
        await until(lambda: all(ticket.abandoned for ticket in waiting))
        outcome = await classify(pair.engine, COLORS, png((9, 9, 9)), deadline=None)

    assert {type(each) for each in settled} == {EngineFailedError}
    # they share one error, which must not show the way of all of them
    frames = traceback.extract_tb(settled[0].__traceback__)
    assert [frame.name for frame in frames].count("classify") == 1
    assert isinstance(outcome, Outcome)


async def test_a_front_end_without_an_engine_says_so(models, tmp_path):
    """In one line of the log, since its leader has no use for a stack."""
    slots = Slots.of(open_memory(1), 1)
    front = SharedEngine(
        Settings(models=models), number=1, path=tmp_path / "no", slots=slots, threads=1
    )

    with pytest.raises(EngineUnreachableError, match="does not answer: "):
        await front.start()


@pytest.mark.parametrize(("closes", "said"), [(True, GONE), (False, "it is silent")])
async def test_a_front_end_that_is_not_greeted_says_why(
    models, tmp_path, monkeypatch, closes, said
):
    """By an engine's process that ends just then, or one that hangs."""
    monkeypatch.setattr("service.shared.front.GREETING_TIMEOUT_S", 30 if closes else 0)
    path, links = tmp_path / "engine", []

    def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        links.append(writer)
        if closes:
            writer.close()

    slots = Slots.of(open_memory(1), 1)
    front = SharedEngine(
        Settings(models=models), number=1, path=path, slots=slots, threads=1
    )
    async with await asyncio.start_unix_server(met, path):
        with pytest.raises(EngineUnreachableError, match=said):
            await front.start()
        for link in links:
            link.close()


async def test_without_the_engine_nothing_is_accepted(shared):
    """Readiness is red, and a request hears so at once."""
    async with shared() as pair:
        before = pair.front.unready()
        await pair.host.close()
        await until(lambda: pair.front.unready() is not None)
        with pytest.raises(NotReadyError, match="has ended"):
            await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)

    assert before is None
    with pytest.raises(DrainingError):
        await classify(pair.front, COLORS, png((9, 9, 9)), deadline=None)


async def test_a_front_end_that_has_lost_its_engine_asks_to_be_replaced(shared):
    """Also by a process that lives on: the port would never be ready again."""
    async with shared() as pair:
        broken = asyncio.create_task(pair.front.broken())
        (link,) = pair.host._front_ends
        link._transport.abort()
        async with asyncio.timeout(20):
            await broken


async def test_a_front_end_that_closes_does_not_ask_to_be_replaced(shared):
    """It would end as one that has failed."""
    async with shared() as pair:
        broken = asyncio.create_task(pair.front.broken())
        await pair.front.close()
        await until(lambda: not pair.host._front_ends and pair.front.unready())
        assert not broken.done()
        broken.cancel()


async def test_pixels_give_the_logits_of_the_image_that_they_are_of(shared, models):
    """They go into slots without a decoder, and every slot comes back."""
    library = Classifier.load(models / "colors", threads=1)
    images = [png((red, 30, 90)) for red in range(5)]
    pixels = [library.preprocess(image).pixels for image in images]

    async with shared() as pair:
        by_image = await classify_many(pair.front, COLORS, images, deadline=None)
        by_pixels = await classify_decoded(pair.front, COLORS, pixels, deadline=None)
        assert free(pair) == 16

    for one, other in zip(by_image, by_pixels, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


async def test_pixels_without_a_free_slot_are_refused_whole(shared):
    """And take none of those that are free."""
    pixels = [np.zeros((8, 8, 3), np.uint8)] * 3
    async with shared(slots=2) as pair:
        with pytest.raises(OverloadedError):
            await classify_decoded(pair.front, COLORS, pixels, deadline=None)
        assert free(pair) == 2


async def test_the_slots_of_withdrawn_pixels_come_back(shared):
    """Those of the one that is run just now, too."""
    slow = np.full((8, 8, 3), SLOW, np.uint8)
    async with shared(lanes=1, batch=1) as pair:
        asked = asyncio.create_task(
            classify_decoded(pair.front, ODD, [slow] * 4, deadline=None)
        )
        await until(lambda: pair.engine._backlog.busy == 1)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: free(pair) == 16)
        assert not pair.front._underway.requests


async def test_what_is_being_decoded_when_the_engine_ends_is_told_so(shared):
    """Each image of it, and with a code that a client knows."""
    async with shared() as pair:
        asked = asyncio.create_task(
            classify_many(pair.front, COLORS, [png((9, 9, 9))] * 4, deadline=None)
        )
        await until(lambda: free(pair) == 12)
        pair.front._lost(pair.front._link)
        settled = await asked
        assert free(pair) == 16

    assert [type(each) for each in settled] == [NotReadyError] * 4
    assert {problem_of(each).status for each in settled} == {503}


async def test_trouble_that_begins_while_a_front_end_starts_is_known_to_it(
    shared, monkeypatch
):
    """What the greeting said is old by then."""
    async with shared() as pair:
        given = pair.front._settings, pair.front._path, pair.front._slots
        late = SharedEngine(
            given[0], number=1, path=given[1], slots=given[2], threads=1
        )
        loop, told = asyncio.get_running_loop(), threading.Event()

        async def trouble():
            pair.engine._lanes._tell("no lane is alive")
            await until(lambda: late.unready() == "no lane is alive")
            told.set()

        def meanwhile():
            asyncio.run_coroutine_threadsafe(trouble(), loop)
            told.wait(20)

        monkeypatch.setattr("service.shared.front.warm_up", meanwhile)
        await late.start()
        found = late.unready()
        await late.close()

    assert told.is_set()
    assert found == "no lane is alive"


async def test_trouble_of_the_engine_is_known_in_front(shared):
    """So that a balancer sees it wherever it asks; also in one that starts then."""
    async with shared() as pair:
        pair.engine._lanes._tell("no lane is alive")
        await until(lambda: pair.front.unready() == "no lane is alive")
        given = pair.front._settings, pair.front._path, pair.front._slots
        late = SharedEngine(
            given[0], number=1, path=given[1], slots=given[2], threads=1
        )
        await late.start()
        assert late.unready() == "no lane is alive"
        await late.close()
        pair.engine._lanes._tell(None)
        await until(lambda: pair.front.unready() is None)


async def test_closing_tells_those_whose_images_are_being_run(shared):
    """That the service stops, and not that its engine has failed."""
    async with shared(lanes=1) as pair:
        asked = asyncio.create_task(
            classify(pair.front, ODD, png((SLOW, 0, 0)), deadline=None)
        )
        await until(lambda: pair.engine._backlog.busy == 1)
        await pair.front.close()
        with pytest.raises(DrainingError):
            await asked


async def test_a_decoder_that_hangs_at_the_end_is_left_behind(shared, monkeypatch):
    """The status of the process says so, as of a run that hangs."""
    go_on = threading.Event()
    monkeypatch.setattr(
        "service.engine.ahead.decode_ticket", lambda *_, **__: go_on.wait(60)
    )
    monkeypatch.setattr("service.engine.ahead.JOIN_S", 1.0)
    async with shared() as pair:
        front = pair.front
        front.submit(COLORS, [png((9, 9, 9))], deadline=None, settle=lambda *_: None)
        await until(lambda: any(decoder.begun for decoder in front._ahead._decoders))
        left = await front.close()
        go_on.set()

    assert left == 1


async def test_closing_tells_those_whose_images_are_being_decoded(shared, monkeypatch):
    """Those at work, those in line for it and those just come: each once, at once."""
    async with shared() as pair:
        closing = await close_while_decoding(
            pair.front, COLORS, in_line=10, monkeypatch=monkeypatch
        )

    assert closing.told == closing.fates == [DrainingError] * 12
