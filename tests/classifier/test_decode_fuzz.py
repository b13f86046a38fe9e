"""Whatever the bytes: an image or an `ImageError`, and not a word on stderr."""

import os
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.decode import SIGNATURES
from classifier.errors import ImageError
from tests.classifier.files import FORMATS, encode, picture, tiff
from tests.classifier.test_decode import decoded

few = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALID = {fmt: encode(picture(24, 20), fmt) for fmt in FORMATS}
# What a signature needs before Pillow looks closer; the dots of the patterns filled.
HEADS = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "WEBP": b"RIFF\x60\x00\x00\x00WEBPVP8 ",
    "GIF": b"GIF89a",
    "BMP": b"BM",
    "TIFF": b"II*\x00\x08\x00\x00\x00",
    "AVIF": b"\x00\x00\x00\x1cftypavif",
}


def survives(data: bytes) -> None:
    """Decoding gives an image or a typed error: anything else leaves the test."""
    with suppress(ImageError):
        assert decoded(data, short_side=8).image.mode == "RGB"


@few
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    """No input is special."""
    survives(data)


@pytest.mark.parametrize("fmt", FORMATS)
@settings(few, max_examples=20)
@given(rest=st.binary(max_size=200))
def test_random_bytes_behind_a_true_signature_are_refused(fmt, rest):
    """They reach the parser of the format."""
    assert set(HEADS) == set(SIGNATURES)
    with pytest.raises(ImageError):
        decoded(HEADS[fmt] + rest, short_side=8)


@pytest.mark.parametrize("fmt", FORMATS)
@settings(few, max_examples=20)
@given(data=st.data())
def test_a_file_cut_anywhere_survives(fmt, data):
    """Uploads end where they end."""
    whole = VALID[fmt]
    survives(whole[: data.draw(st.integers(1, len(whole) - 1))])


@pytest.mark.parametrize("fmt", FORMATS)
@settings(few, max_examples=40)
@given(data=st.data())
def test_flipped_bits_survive(fmt, data):
    """Most of them in the first bytes, where sizes, offsets and tables are."""
    damaged = bytearray(VALID[fmt])
    places = st.integers(0, len(damaged) - 1) | st.integers(0, 63)
    for place, bit in data.draw(
        st.lists(st.tuples(places, st.integers(0, 7)), min_size=1, max_size=8)
    ):
        damaged[place] ^= 1 << bit
    survives(bytes(damaged))


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*range(254, 285), 322, 323, 324, 325, 330, 338, 34665]),
            st.integers(0, 13),
            st.integers(0, 2**32 - 1) | st.integers(0, 4),
            st.integers(0, 2**32 - 1) | st.integers(0, 64),
        ),
        max_size=8,
    )
)
def test_any_directory_of_a_tiff_survives(entries):
    """Tags of any type, count and place: the format with the most holes."""
    survives(tiff(*entries, side=8))


def test_libtiff_does_not_write_to_stderr(capfd):
    """Its C code prints a line for each odd tag: a hostile file could fill a disk."""
    odd = tiff((65_000, 3, 1, 1), (259, 3, 1, 5), (317, 3, 1, 9), pixels=b"\x80" * 99)

    with pytest.raises(ImageError):
        decoded(odd)
    os.write(2, b"seen")  # the check can fail: this is what it would find

    assert capfd.readouterr().err == "seen"
