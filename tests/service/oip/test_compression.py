"""Compressed bodies: whole, damaged, cut off, and far larger than they look."""

import gzip
import os
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MalformedRequestError
from service.oip.compression import PIECE_BYTES, READ_BYTES, decompressed

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


@given(body=st.binary(max_size=200), encoding=st.sampled_from(sorted(COMPRESS)))
def test_no_bytes_are_a_fault_of_ours(body, encoding):
    """They are unpacked or refused."""
    with suppress(MalformedRequestError):
        list(decompressed(body, encoding))
