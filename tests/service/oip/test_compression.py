"""Compressed bodies: whole, damaged, cut off, and far larger than they look."""

import gzip
import os
import tracemalloc
import zlib
from contextlib import suppress
from functools import partial
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bodies import Bodies
from service.errors import BodyTooLargeError, MalformedRequestError
from service.exchange import Exchange
from service.oip import compression
from service.oip.compression import (
    PIECE_BYTES,
    READ_BYTES,
    decompress,
    decompressed,
)

COMPRESS = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.fixture(params=COMPRESS)
def encoding(request) -> str:
    """Each that is taken."""
    return request.param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a",
        bytes(PIECE_BYTES - 1),
        bytes(PIECE_BYTES),
        bytes(3 * PIECE_BYTES + 1),
        os.urandom(2 * READ_BYTES + 1),
    ],
    ids=len,
)
def test_a_body_comes_out_as_it_went_in(encoding, body):
    """In pieces of a bounded size."""
    pieces = list(decompressed(COMPRESS[encoding](body), encoding))

    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: b"",
        lambda body: body[:-1],
        lambda body: body + b"x",
        lambda body: body + bytes(2 * READ_BYTES),
        lambda body: body + body,
        lambda body: b"plain text",
        lambda body: body[:10] + b"\xff" * 9 + body[19:],
    ],
)
def test_what_is_not_whole_is_refused(encoding, damage):
    """Or what goes on after its end."""
    body = damage(COMPRESS[encoding](bytes(range(256)) * 9))

    with pytest.raises(MalformedRequestError, match=encoding):
        list(decompressed(body, encoding))


def test_what_follows_the_end_is_refused_after_many_pieces_too(encoding):
    """zlib goes on to give it back, so that a request of 1 KB never ended."""
    body = COMPRESS[encoding](bytes(PIECE_BYTES + 1)) + b"x"

    with pytest.raises(MalformedRequestError, match="goes on"):
        list(islice(decompressed(body, encoding), 99))


def test_what_follows_in_a_piece_of_its_own_is_refused(encoding, monkeypatch):
    """The end of the whole may be that of a piece."""
    whole = COMPRESS[encoding](b"tensor")
    monkeypatch.setattr(compression, "READ_BYTES", len(whole))

    assert list(decompressed(whole, encoding)) == [b"tensor"]
    with pytest.raises(MalformedRequestError, match="goes on"):
        list(decompressed(whole + b"x", encoding))


def test_of_a_bomb_only_what_is_asked_for_is_unpacked():
    """A thousand times its size would not fit into the memory of many machines."""
    bomb = gzip.compress(bytes(300 * PIECE_BYTES), 9)
    tracemalloc.start()
    try:
        pieces = decompressed(bomb, "gzip")
        taken = [len(next(pieces)) for _ in range(3)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert taken == [PIECE_BYTES] * 3
    assert peak < 10 * PIECE_BYTES


async def test_a_body_whose_unpacked_size_is_the_limit_to_the_byte_is_taken(encoding):
    """What was sent is held beside it and does not count against it; a byte more is
    refused."""
    bodies = Bodies(max_buffered_bytes=10_000, timeout_s=20)
    exchange = Exchange("id", "POST", "/", 0.0)
    unpack = partial(decompress, scope={"linnaeus": exchange}, bodies=bodies)
    sent = COMPRESS[encoding](bytes(1000))
    bodies.hold(len(sent), exchange, limit=1000)

    whole = await unpack(sent, encoding, limit=1000)
    held = exchange.held_bytes
    with pytest.raises(BodyTooLargeError):
        await unpack(sent, encoding, limit=999)

    assert whole == bytes(1000)
    assert held == len(sent) + 1000


@given(body=st.binary(max_size=200), encoding=st.sampled_from(sorted(COMPRESS)))
def test_no_bytes_are_a_fault_of_ours(body, encoding):
    """They are unpacked or refused."""
    with suppress(MalformedRequestError):
        list(decompressed(body, encoding))
