"""JSON is the same by orjson and by Python, also where only Python can write it."""

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jsons import to_ascii_json, to_json

plain = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
# lone surrogates and integers beyond 64 bits too, which orjson refuses
texts = st.text(st.characters(exclude_categories=()))
leaves = plain | st.integers() | texts
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)
    ),
)


def spoken(value: object) -> object:
    """What UTF-8 can say of a value: each lone surrogate is a question mark."""
    text = json.dumps(value, ensure_ascii=False).encode(errors="replace")
    return json.loads(text)


@given(values)
def test_what_is_written_is_read_again(value):
    assert json.loads(to_json(value)) == spoken(value)


@given(values)
def test_a_line_of_the_log_is_ascii_and_one_line(value):
    """On any terminal, and for any reader of lines (U+2028 ends one for some)."""
    line = to_ascii_json(value)

    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line) == value


@pytest.mark.parametrize("name", ["kurz", "größe", "\ud800"])
def test_what_is_no_json_is_told_by_its_repr(name):
    line = to_ascii_json({name: timedelta(seconds=1)})

    assert json.loads(line) == {name: "datetime.timedelta(seconds=1)"}


def test_json_is_compact():
    assert to_json({"a": [1, 2.5, None, True, "ö"]}) == (
        b'{"a":[1,2.5,null,true,"\xc3\xb6"]}'
    )
    assert to_json([2**64, "\ud800"]) == b'[18446744073709551616,"?"]'
