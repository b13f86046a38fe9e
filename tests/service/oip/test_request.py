"""Bodies of inference requests: what is taken, and that the rest is refused by name."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.errors import (
    EmptyBodyError,
    MalformedRequestError,
    ServiceError,
    TooManyImagesError,
)
from service.oip.request import (
    MAX_VALUES,
    Output,
    header_bytes_of,
    read_inference,
)
from service.oip.shapes import InferenceRequest
from service.problems import problem_of
from tests.service.conftest import RED
from tests.service.oip.bodies import elements, in_json, input_of, pixels

SHAPE = (2, 2, 3)
FLAT = list(range(24))
NESTED = np.arange(24).reshape(2, *SHAPE).tolist()


def read(body: object, binary: bytes | None = None):
    """The inference of a request, for a model of 2x2 pixels and at most 4 images."""
    text = json.dumps(body).encode()
    header_bytes = None if binary is None else len(text)
    return read_inference(
        text + (binary or b""), header_bytes, shape=SHAPE, max_items=4
    )


def binary_request(size: int, **members: Any) -> dict[str, Any]:
    """The JSON of a request with one binary input."""
    return {"inputs": [input_of(parameters={"binary_data_size": size}, **members)]}


def test_images_are_read_from_json_and_from_behind_it():
    """base64 there, lengths and bytes here."""
    tensor = elements(RED, b"", b"abc", b"")
    request = binary_request(len(tensor), shape=[4])

    assert read(in_json(RED, b"abc")).images == [RED, b"abc"]
    assert read(request, tensor).images == [RED, b"", b"abc", b""]


def test_as_many_images_as_are_accepted_are_taken():
    """And one more is refused, with both numbers."""
    assert read(in_json(*[RED] * 4)).count == 4
    with pytest.raises(TooManyImagesError, match="has 5 images; at most 4"):
        read(in_json(*[RED] * 5))


@pytest.mark.parametrize("data", [FLAT, NESTED])
def test_pixels_are_read_flat_or_nested(data):
    """Row-major either way."""
    inference = read(pixels(data, [2, *SHAPE]))
    found = inference.pixels

    assert inference.count == 2
    np.testing.assert_array_equal(np.stack(found), np.array(NESTED))
    assert found[0].dtype == np.uint8


def test_binary_pixels_are_not_copied():
    """A view of the body, which is held and counted until the answer."""
    request = binary_request(
        24, name="pixels", datatype="UINT8", shape=[2, *SHAPE], data=None
    )
    found = read(request, bytes(FLAT)).pixels

    np.testing.assert_array_equal(np.stack(found), np.array(NESTED))
    assert found[0].base is not None
    assert not found[0].flags.owndata


def test_outputs_are_all_in_json_unless_asked_otherwise():
    """As the protocol says; what an output says goes before what the request says."""
    whole = {"parameters": {"binary_data_output": True}}
    one = {"outputs": [{"name": "logits", "parameters": {"binary_data": False}}]}
    classes = {"outputs": [{"name": "scores", "parameters": {"classification": 2}}]}

    assert read(in_json(RED)).outputs == [
        Output("scores", binary=False),
        Output("logits", binary=False),
    ]
    assert read(in_json(RED, outputs=[])).outputs == read(in_json(RED)).outputs
    assert all(output.binary for output in read(in_json(RED, **whole)).outputs)
    assert read(in_json(RED, **whole, **one)).outputs == [Output("logits", False)]
    assert read(in_json(RED, **classes)).outputs == [Output("scores", False, 2)]
    classes["outputs"][0]["parameters"]["classification"] = 0  # Triton's word for none
    assert read(in_json(RED, **classes)).outputs == [Output("scores", False)]


def test_a_length_of_thousands_of_digits_is_no_number():
    """Python refuses to read one, and that would be a fault of ours."""
    scope = {"headers": [(b"inference-header-content-length", b"9" * 5_000)]}

    with pytest.raises(MalformedRequestError, match="a number of bytes is needed"):
        header_bytes_of(scope)


def test_what_other_servers_know_changes_nothing():
    """Clients send it unasked: sequences, priorities, content types."""
    body = in_json(RED, parameters={"priority": 1, "sequence_id": 3, "own": {}})
    body["inputs"][0]["parameters"] = {"content_type": "base64"}
    body["model_name"] = "any"

    assert read(body).images == [RED]


@pytest.mark.parametrize(("sent", "meant"), [(0, None), (1, 1), (2**40, 2**40)])
def test_a_timeout_of_0_is_none(sent, meant):
    """It is Triton's word for that, and the default of its client."""
    assert read(in_json(RED, parameters={"timeout": sent})).timeout_us == meant


WRONG = [
    (7, "the request: input should be an object"),
    ({}, "inputs: field required"),
    ({"inputs": []}, "inputs"),
    ({"inputs": [input_of(name="x", data=[])]}, "the inputs are 'x'; one is needed"),
    ({"inputs": [input_of(data=[])] * 2}, "'image, image'; one is needed"),
    ({"inputs": [input_of(datatype="FP32", data=[])]}, "datatype 'FP32'; BYTES is"),
    ({"inputs": [input_of(shape=["1"], data=[])]}, "inputs.0.shape.0"),
    ({"inputs": [input_of(shape=[True], data=[])]}, "inputs.0.shape.0"),
    ({"inputs": [input_of(shape=[], data=[])]}, "there is no image"),
    ({"inputs": [input_of(shape=[0], data=[])]}, "there is no image"),
    ({"inputs": [input_of(shape=[-1], data=[])]}, "there is no image"),
    ({"inputs": [input_of(shape=[5], data=[""] * 5)]}, "has 5 images; at most 4"),
    ({"inputs": [input_of(shape=[2**70], data=[])]}, "at most 4"),
    (
        {"inputs": [input_of(shape=[1, 1], data=[""])]},
        "has shape [1, 1]; this model takes [N]",
    ),
    ({"inputs": [input_of()]}, "needs either data or the parameter"),
    (
        {"inputs": [input_of(data=[""], parameters={"binary_data_size": 0})]},
        "needs either data or the parameter",
    ),
    ({"inputs": [input_of(data="")]}, "not a list of 1 elements"),
    ({"inputs": [input_of(data=[1])]}, "image[0] is not a string of base64"),
    ({"inputs": [input_of(data=["%"])]}, "image[0] is not base64"),
    ({"inputs": [input_of(data=["", ""])]}, "list of 2 elements; its shape needs 1"),
    (
        {"inputs": [input_of(parameters={"shared_memory_region": "a"})]},
        "image is in shared memory",
    ),
    (pixels(FLAT, [2, 2, 2, 4]), "this model takes [N, 2, 2, 3]"),
    (pixels(FLAT, [2]), "this model takes [N, 2, 2, 3]"),
    (pixels(FLAT[:-1], [2, *SHAPE]), "list of 23 elements; its shape needs 24"),
    (pixels([], [2, *SHAPE]), "list of 0 elements; its shape needs 24"),
    (pixels(5, [2, *SHAPE]), "pixels is not a list of 24 elements"),
    (pixels({"0": [1]}, [2, *SHAPE]), "pixels is not a list of 24 elements"),
    (pixels(NESTED[:1], [2, *SHAPE]), "list of 1 elements; its shape needs 2"),
    (pixels([NESTED[0], [[]]], [2, *SHAPE]), "its shape needs 2"),
    (pixels([*FLAT[:-1], 256], [2, *SHAPE]), "no whole number from 0 to 255"),
    (pixels([*FLAT[:-1], -1], [2, *SHAPE]), "no whole number from 0 to 255"),
    (pixels([*FLAT[:-1], 1.5], [2, *SHAPE]), "no whole number from 0 to 255"),
    (pixels([*FLAT[:-1], "1"], [2, *SHAPE]), "no whole number from 0 to 255"),
    (pixels([*FLAT[:-1], True], [2, *SHAPE]), "true or false"),
    (pixels([*FLAT[:-1], None], [2, *SHAPE]), "no whole number from 0 to 255"),
    (pixels([*FLAT[:-1], [1]], [2, *SHAPE]), "no whole number from 0 to 255"),
    (in_json(RED, id=7), "id"),
    (in_json(RED, id="x" * 1025), "id"),
    (in_json(RED, outputs=[{"name": "x"}]), "output 'x' is unknown"),
    (in_json(RED, outputs=[{"name": "scores"}] * 2), "asked for twice"),
    (in_json(RED, parameters={"timeout": -1}), "parameters.timeout"),
    (in_json(RED, parameters={"timeout": 2**63}), "parameters.timeout"),
    (in_json(RED, parameters={"binary_data_output": 1}), "parameters.binary_data"),
    (
        in_json(
            RED, outputs=[{"name": "scores", "parameters": {"classification": -1}}]
        ),
        "classification",
    ),
    (
        in_json(
            RED,
            outputs=[{"name": "scores", "parameters": {"shared_memory_region": "a"}}],
        ),
        "shall go to shared memory",
    ),
]


@pytest.mark.parametrize(("body", "text"), WRONG)
def test_what_is_wrong_is_named(body, text):
    """And what is allowed instead, where that is short."""
    with pytest.raises(ServiceError) as raised:
        read(body)

    assert text in str(raised.value)
    assert problem_of(raised.value).status in (400, 413)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [1] * 99},
        {"inputs": [{}] * 99},
        {"inputs": [input_of(shape=["1"] * 99)]},
        in_json(RED, outputs=[{}] * 99),
    ],
)
def test_after_a_wrong_element_no_other_is_looked_at(body):
    """Half a million took seconds and gigabytes, to tell of one."""
    with pytest.raises(ValidationError) as raised:
        InferenceRequest.model_validate_json(json.dumps(body))

    assert raised.value.error_count() <= 3  # all of one element


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [input_of()] * 17 + [{}]},
        in_json(RED, outputs=[{"name": "scores"}] * 17 + [{}]),
    ],
)
def test_of_more_tensors_than_there_can_be_no_other_is_looked_at(body):
    """Half a million good ones took a second, in which nothing else ran."""
    with pytest.raises(MalformedRequestError, match="should have at most 16 items"):
        read(body)


@pytest.mark.parametrize(
    ("tensor", "size", "text"),
    [
        (b"", 0, "ends within its element 0"),
        (b"\x01\x00\x00", 3, "ends within its element 0"),
        (b"\xff\xff\xff\xffabc", 7, "ends within its element 0"),
        (elements(b"a", b"b"), 10, "goes on for 5 bytes after its 1 elements"),
        (elements(b"a"), 4, "5 bytes follow the JSON"),
        (elements(b"a"), 6, "5 bytes follow the JSON"),
        (elements(b"a"), 2**62, "5 bytes follow the JSON"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(tensor, size, text):
    """Before anything is read past the end."""
    with pytest.raises(MalformedRequestError) as raised:
        read(binary_request(size), tensor)

    assert text in str(raised.value)


@pytest.mark.parametrize("size", [23, 25])
def test_pixels_of_another_size_than_their_shape_are_refused(size):
    """One byte too many as well as one too few."""
    request = binary_request(size, name="pixels", datatype="UINT8", shape=[2, *SHAPE])

    with pytest.raises(MalformedRequestError, match=f"has {size} bytes; .* needs 24"):
        read(request, bytes(size))


def test_a_json_that_shall_be_longer_than_the_body_is_refused():
    """By one byte, too: it would be read as if its length had not been told."""
    text = json.dumps(in_json(RED)).encode()

    with pytest.raises(MalformedRequestError, match=f"has only {len(text)} bytes"):
        read_inference(text, len(text) + 1, shape=SHAPE, max_items=4)


@pytest.mark.parametrize("shape", [[10**999], [-(10**999)], [1, 10**999]])
def test_what_an_error_repeats_of_a_shape_is_cut(shape):
    """A number of JSON may have thousands of digits."""
    with pytest.raises(ServiceError, match="000…") as raised:
        read({"inputs": [input_of(shape=shape, data=[""])]})

    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("value", "each"), [(b"1,", 1), (b"[],", 2), (b"{},", 2), (b"[", 1)]
)
def test_json_of_countless_values_is_refused_before_it_is_parsed(value, each):
    """Each costs 25 times the memory of its characters."""
    text = value * (MAX_VALUES // each + 1)

    with pytest.raises(MalformedRequestError, match="as binary data"):
        read_inference(text, None, shape=SHAPE, max_items=4)


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{", b"[" * 9_999, b"1" * 9_999, b'{"id":"\\ud800"}']
)
def test_what_is_not_json_is_refused(text):
    """Nesting, digits and surrogates included."""
    with pytest.raises(MalformedRequestError):
        read_inference(text, None, shape=SHAPE, max_items=4)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "data", "parameters", "datatype"]), inner
        )
    ),
    max_leaves=12,
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["image", "pixels"]) | json_values,
        "datatype": st.sampled_from(["BYTES", "UINT8"]) | json_values,
        "shape": st.lists(st.integers(-2, 4), max_size=5)
        | st.just([1, *SHAPE])
        | json_values,
        "data": json_values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 30)})
        | json_values,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=2) | json_values},
    optional={
        "id": json_values,
        "parameters": json_values,
        "outputs": json_values
        | st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["scores", "logits"])},
                optional={"parameters": json_values},
            )
        ),
    },
)


@given(
    body=requests | json_values,
    behind=st.binary(max_size=30),
    header=st.none() | st.integers(0, 400),
)
def test_whatever_comes_is_read_or_refused(body, behind, header):
    """With an error that a client may see; anything else would be a 500."""
    text = json.dumps(body).encode()
    for header_bytes in (header, None, len(text)):
        try:
            inference = read_inference(
                text + behind, header_bytes, shape=SHAPE, max_items=4
            )
        except (MalformedRequestError, EmptyBodyError, TooManyImagesError):
            pass  # a client's mistake, by its type
        else:
            assert 1 <= inference.count <= 4
            assert all(each.shape == SHAPE for each in inference.pixels)
