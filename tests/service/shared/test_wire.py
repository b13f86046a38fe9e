"""Messages survive the wire, however they are cut; memory is shared with a child."""

import asyncio
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import SessionError
from classifier.manifest import MAX_LABELS
from service.errors import (
    DrainingError,
    EngineFailedError,
    NotReadyError,
    OverloadedError,
)
from service.settings import Settings
from service.shared.slots import Slots, open_memory
from service.shared.wire import (
    LENGTH,
    MAPS,
    WHOLE_REQUEST,
    Failed,
    Hello,
    Link,
    Message,
    Result,
    SharedModel,
    State,
    Submit,
    Withdraw,
    pack,
    unpack,
)

requests = st.integers(0, 2**64 - 1)
numbers = st.integers(0, 2**32 - 1)
small = st.integers(0, 2**16 - 1)
milliseconds = st.floats(0, 1e6, width=32)
messages = st.one_of(
    st.builds(Hello, numbers),
    st.builds(
        Submit,
        requests,
        small,
        st.booleans(),
        st.none() | st.floats(0, 1e9),
        st.lists(numbers, min_size=1, max_size=64).map(tuple),
    ),
    st.builds(Withdraw, requests),
    st.builds(
        Result,
        *(requests, small, small, milliseconds, milliseconds),
        st.binary(max_size=40),
    ),
    st.builds(
        Failed,
        *(requests, small, st.just("overloaded"), st.text(max_size=40)),
        st.none() | st.floats(0, 1e6),
    ),
    st.builds(State, st.none() | st.text(max_size=40)),
    st.just(
        State(
            None,
            (
                SharedModel("a", 1, "fp32", "cpu", True, 0.5),
                SharedModel("b", 2, "int8", "cpu", False, 2.0),
            ),
        )
    ),
)


@given(st.lists(messages, max_size=8), st.integers(1, 50))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(sent, piece):
    """A socket keeps no borders between messages."""
    heard = []
    link = Link(lambda _, message: heard.append(message), lambda _: None)
    stream = b"".join(map(pack, sent))

    for start in range(0, len(stream), piece):
        link.data_received(stream[start : start + piece])

    assert heard == sent


def test_no_image_of_a_request_is_taken_for_all_of_it():
    """Its failure would be that of its neighbors."""
    items = Settings.model_json_schema()["properties"]["max_batch_items"]

    assert items["maximum"] < WHOLE_REQUEST


async def linked() -> tuple[Link, list[Message], asyncio.Event]:
    """A link, what its other end hears, and whether that has heard of its end."""
    heard, lost, loop = [], asyncio.Event(), asyncio.get_running_loop()
    here, there = socket.socketpair()
    _, link = await loop.create_connection(
        lambda: Link(lambda *_: None, lambda _: None), sock=here
    )
    await loop.create_connection(
        lambda: Link(lambda _, message: heard.append(message), lambda _: lost.set()),
        sock=there,
    )
    return link, heard, lost


async def test_what_is_sent_before_the_end_arrives():
    """Also in the same turn of the loop; what is sent after it is dropped."""
    link, heard, lost = await linked()

    link.send(Hello(1))
    link.send(Withdraw(2))
    link.close()
    link.send(Hello(3))
    async with asyncio.timeout(20):
        await lost.wait()

    assert heard == [Hello(1), Withdraw(2)]


async def test_what_is_sent_in_one_turn_of_the_loop_goes_in_one_write():
    """A batch settles many images."""
    written = []
    transport = SimpleNamespace(write=written.append, is_closing=lambda: False)
    link = Link(lambda *_: None, lambda _: None)
    link.connection_made(transport)

    for number in range(3):
        link.send(Hello(number))
    await asyncio.sleep(0)
    link.send(Hello(3))
    await asyncio.sleep(0)

    assert written == [b"".join(map(pack, map(Hello, range(3)))), pack(Hello(3))]


@pytest.mark.parametrize(
    "message",
    [
        Submit(2**32, 0, False, None, (5,)),
        Withdraw(2**32),
        Result(2**32, 0, 1, 0.0, 0.0),
        Failed(2**32, 0, "overloaded", "full", None),
    ],
)
def test_the_numbers_of_requests_do_not_end(message):
    """A front-end counts up for as long as it lives, also past 32 bits."""
    assert unpack(pack(message)[LENGTH.size :]) == message


def test_class_maps_are_of_as_many_labels_as_a_bundle_may_have():
    """16 bits would count 65,535, and end the request of an image of more."""
    assert MAPS.unpack(MAPS.pack(MAX_LABELS, 7, 7)) == (MAX_LABELS, 7, 7)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OverloadedError("full", retry_after_s=7.5), OverloadedError),
        (DrainingError("ends"), DrainingError),
        (NotReadyError("no lane is alive"), NotReadyError),
        (EngineFailedError("broke"), EngineFailedError),
        (RuntimeError("a fault of ours"), EngineFailedError),
    ],
)
def test_an_error_is_the_same_error_on_the_other_side(error, kind):
    """With its text and with when to come back."""
    arrived = Failed.of(1, WHOLE_REQUEST, error).error

    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert getattr(arrived, "retry_after_s", None) == getattr(
        error, "retry_after_s", None
    )


def test_the_cause_of_a_failure_comes_along_in_words():
    """It is logged where the request is known; an answer repeats no 500."""
    cause = SessionError("ONNX Runtime: no room")
    error = EngineFailedError.caused_by(cause, "the model failed on this image")

    arrived = Failed.of(1, 0, error).error

    assert str(arrived) == "the model failed on this image: ONNX Runtime: no room"


def test_a_code_that_is_not_known_here_is_a_failure_of_the_engine():
    """It must not end the connection on which it came."""
    arrived = Failed(1, WHOLE_REQUEST, "of_another_version", "why", 2.0).error

    assert type(arrived) is EngineFailedError
    assert str(arrived) == "why"


def test_a_slot_holds_pixels_and_then_their_result():
    """Neighbors are not touched."""
    descriptor = open_memory(3 * 64)
    slots = Slots.of(descriptor, 64)
    os.close(descriptor)
    for slot in range(3):
        slots.pixels(slot, (4, 4, 3))[:] = slot
    logits = np.array([1.5, -2.0], np.float32)

    slots.write_result(1, logits, logits / 2)

    np.testing.assert_array_equal(slots.read_result(1, 2), [logits, logits / 2])
    assert slots.count == 3
    assert (slots.pixels(0, (4, 4, 3)) == 0).all()
    assert (slots.pixels(2, (4, 4, 3)) == 2).all()


def test_what_a_child_writes_is_seen_here():
    """The memory has no name; a descriptor is all that the child gets."""
    descriptor = open_memory(64)
    code = (
        "from service.shared.slots import Slots\n"
        f"Slots.of({descriptor}, 64).pixels(0, (2, 2, 1))[:] = 7\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True, pass_fds=(descriptor,))

    assert (Slots.of(descriptor, 64).pixels(0, (2, 2, 1)) == 7).all()
    os.close(descriptor)
