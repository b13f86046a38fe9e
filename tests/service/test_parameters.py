"""Query parameters are known, single and within bounds, or refused by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameterError
from service.parameters import Parameters, read_parameters

EVERY = b"threshold=0.5&top_k=3&version=2&model=a-b&explain=true"


def test_no_query_leaves_every_choice_to_the_bundle():
    """The usual request has none."""
    assert read_parameters(b"") == Parameters()


def test_every_parameter_can_be_given():
    """All five, in any order."""
    assert read_parameters(EVERY) == Parameters("a-b", 2, 3, 0.5, True)


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        (b"threshold=0", Parameters(threshold=0.0)),
        (b"threshold=1", Parameters(threshold=1.0)),
        (b"threshold=5e-1", Parameters(threshold=0.5)),
        (b"version=" + b"9" * 18, Parameters(version=10**18 - 1)),
        (b"%74op_k=%33", Parameters(top_k=3)),
        (b"explain=True", Parameters(explain=True)),
        (b"explain=1", Parameters(explain=True)),
        (b"explain=0", Parameters(explain=False)),
    ],
)
def test_what_is_at_a_bound_or_written_otherwise_is_taken(query, meant):
    """And means the same."""
    assert read_parameters(query) == meant


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (b"topk=3", "'topk' is not a parameter; allowed: model, version, top_k"),
        (b"top_k=3&top_k=4", "top_k is given more than once"),
        (b"top_k=", "top_k is ''; a whole number"),
        (b"top_k=1_0", "top_k is '1_0'"),
        (b"top_k=%D9%A3", "a whole number"),  # a digit, but not of ASCII
        (b"top_k=0", "the least allowed is 1"),
        (b"top_k=-1", "top_k is '-1'"),
        (b"version=" + b"9" * 19, "version has 19 digits; at most 18 are allowed"),
        (b"top_k=" + b"9" * 9999, "top_k has 9999 digits; at most 18"),
        (b"threshold=nan", "threshold is 'nan'; a number from 0 to 1"),
        (b"threshold=0.1_5", "a number from 0 to 1"),
        (b"threshold=%D9%A0", "a number from 0 to 1"),
        (b"threshold=%200.5", "threshold is ' 0.5'; a number from 0 to 1"),
        (b"threshold=0.5%0A", "a number from 0 to 1"),
        (b"threshold=1.01", "a number from 0 to 1"),
        (b"threshold=inf", "a number from 0 to 1"),
        (b"explain=maybe", "true or false"),
        (b"&&&", "cannot be read"),
        (b"%ff=1", "cannot be read"),
        (b"a=1&b=2&c=3&d=4&e=5&f=6", "'a' is not a parameter"),
        (EVERY + b"&topk=3", "'topk' is not a parameter"),
        (EVERY + b"&top_k=4" * 9999, "top_k is given more than once"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(query, said):
    """No value is bent into one that was not meant."""
    with pytest.raises(InvalidParameterError, match=re.escape(said)):
        read_parameters(query)


@given(st.binary(max_size=80))
def test_any_query_is_parameters_or_their_error(query):
    """Hostile bytes cause nothing else, and what passes is within bounds."""
    try:
        read = read_parameters(query)
    except InvalidParameterError:
        return
    assert read.top_k is None or read.top_k >= 1
    assert read.version is None or read.version >= 1
    assert read.threshold is None or 0 <= read.threshold <= 1
