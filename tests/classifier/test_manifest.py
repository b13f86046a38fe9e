"""manifest.json ↔ Manifest: every field required, nothing unknown, nothing coerced."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from classifier.manifest import Manifest, Task
from tests.synthetic import manifest_fields

Fields = dict[str, Any]
Path = tuple[str | int, ...]


def full() -> Fields:
    """A valid manifest in which every optional part is there."""
    fields = manifest_fields("colors", Task.FINE_GRAINED)
    gate = {
        "passed": True,
        "dataset": "d",
        "n": 10,
        "accuracy_drop": 0.0,
        "agreement": 1.0,
        "reason": "",
    }
    metrics = [{"dataset": "d", "split": "test", "n": 5, "values": {"top1": 0.5}}]
    small = {"precision": "int8", "file": "small.onnx", "gate": gate}
    fields["graphs"].append(fields["graphs"][0] | small | {"metrics": metrics})
    kept = ("command", "commit", "data_sha256", "versions", "hardware", "created")
    optimization = {key: fields["provenance"][key] for key in kept}
    fields["provenance"]["optimizations"] = [optimization | {"version": 1}]
    return fields


def places(value: Any, at: Path = ()) -> list[Path]:
    """Where each named field of a nested manifest is."""
    found: list[Path] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            # free-form tables: their keys are data
            if at and at[-1] in {"values", "versions", "data_sha256"}:
                continue
            found += [(*at, key), *places(inner, (*at, key))]
    elif isinstance(value, list) and value:
        found += places(value[-1], (*at, len(value) - 1))
    return found


def changed(place: Path, value: Any) -> Fields:
    """A full manifest with another value there."""
    fields = copy.deepcopy(full())
    inner: Any = fields
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return fields


def read(fields: Fields) -> Manifest:
    """As from a file."""
    return Manifest.model_validate_json(json.dumps(fields))


def wrong(fields: Fields) -> dict[str, str]:
    """Dotted place → message of everything that a manifest is refused for."""
    with pytest.raises(ValidationError) as refused:
        read(fields)
    return {".".join(map(str, e["loc"])): e["msg"] for e in refused.value.errors()}


def dotted(place: Path) -> str:
    """A place as an error names it."""
    return ".".join(map(str, place))


required = [p for p in places(full()) if p != ("provenance", "optimizations")]


@pytest.mark.parametrize("place", required, ids=dotted)
def test_every_field_is_required(place):
    """What changes a prediction has no default, and neither has what explains it."""
    fields = copy.deepcopy(full())
    inner: Any = fields
    for key in place[:-1]:
        inner = inner[key]
    del inner[place[-1]]

    assert wrong(fields)[dotted(place)] == "Field required"


def test_a_bundle_from_before_optimizations_were_recorded_is_read():
    """It is the one field that may be missing: it explains, and changes no answer."""
    fields = full()
    del fields["provenance"]["optimizations"]

    assert read(fields).provenance.optimizations == ()


objects = sorted({place[:-1] for place in places(full())}, key=str)


@pytest.mark.parametrize("place", objects, ids=lambda place: dotted(place) or "top")
def test_an_unknown_field_is_refused_by_name(place):
    """A typo or a field of a later schema is never ignored."""
    name = (*place, "surprise")

    assert wrong(changed(name, 1))[dotted(name)] == "Extra inputs are not permitted"


@pytest.mark.parametrize("text", ["a\tb", "a\nb", "a\0b", "\x1b[31mred", "a\x85b"])
@pytest.mark.parametrize("member", ["id", "name", "group"])
def test_a_label_has_no_control_characters(member, text):
    """A terminal would obey them, and a line of a list would end early."""
    place = ("labels", 0, member)

    message = wrong(changed(place, text))[dotted(place)]
    assert message.endswith(
        f"{text!r} has a control character, such as a tab or the end of a line"
    )


PROSE = [("description",), ("provenance", "license"), ("provenance", "source")]


@pytest.mark.parametrize("place", PROSE, ids=dotted)
def test_prose_may_have_several_lines_and_no_other_control_characters(place):
    """It is for people, who may have written it as a list."""
    read(changed(place, "Which pet:\n\t- cat\n\t- dog\n"))

    for text in ("a\0b", "\x1b[31mred", "a\rb", "a\x85b"):
        message = wrong(changed(place, text))[dotted(place)]
        assert "it has the control character '\\x" in message or "'\\r'" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("version",), "1"),
        (("version",), 1.5),
        (("version",), True),
        (("preprocess", "height"), "8"),
        (("preprocess", "background", 0), 0.5),
        (("postprocess", "temperature"), "1.0"),
        (("postprocess", "top_k"), 2.5),
        (("labels", 2, "id"), 7),
        (("graphs", 1, "gate", "passed"), "true"),
        (("graphs", 1, "gate", "passed"), 1),
        (("provenance", "seconds"), "0"),
    ],
)
def test_nothing_is_coerced(place, value):
    """`bool("false")` is true somewhere; here it is an error."""
    assert dotted(place) in wrong(changed(place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 2),
        (("name",), ""),
        (("name",), "../up"),
        (("name",), "Upper"),
        (("name",), "a\n"),
        (("name",), "a" * 65),
        (("version",), 0),
        (("version",), 10**18),
        (("description",), "d" * 2001),
        (("task",), "regression"),
        (("labels", 2, "name"), ""),
        (("labels", 2, "id"), "i" * 201),
        (("preprocess", "height"), 0),
        (("preprocess", "width"), 4097),
        (("preprocess", "color"), "bgr"),
        (("preprocess", "resize"), "stretch"),
        (("preprocess", "interpolation"), "magic"),
        (("preprocess", "background", 1), 256),
        (("preprocess", "background", 1), -1),
        (("postprocess", "activation"), "relu"),
        (("postprocess", "temperature"), 0.0),
        (("postprocess", "temperature"), 101.0),
        (("postprocess", "temperature"), float("nan")),
        (("postprocess", "temperature"), 1e-30),
        (("postprocess", "top_k"), 0),
        (("postprocess", "abstain_threshold"), 1.5),
        (("graphs", 0, "file"), "/etc/passwd"),
        (("graphs", 0, "file"), "../model.onnx"),
        (("graphs", 0, "file"), "a/b.onnx"),
        (("graphs", 0, "file"), ".hidden"),
        (("graphs", 0, "file"), "model.onnx\n"),
        (("graphs", 0, "sha256"), "0" * 63),
        (("graphs", 0, "sha256"), "G" * 64),
        (("graphs", 0, "precision"), "int4"),
        (("graphs", 0, "golden_tolerance"), 0.0),
        (("graphs", 0, "golden_tolerance"), float("inf")),
        (("graphs", 1, "gate", "agreement"), 1.1),
        (("graphs", 1, "metrics", 0, "n"), 0),
        (("graphs", 1, "metrics", 0, "values", "top1"), float("nan")),
        (("provenance", "seconds"), -1.0),
    ],
)
def test_a_value_out_of_range_is_refused_by_place(place, value):
    """Also values that JSON as Python writes it can hold, such as NaN."""
    assert dotted(place) in wrong(changed(place, value))


@pytest.mark.parametrize("parts", ["labels", "graphs"])
def test_a_manifest_without_labels_or_graphs_is_refused(parts):
    """There would be nothing to say, or nothing to run."""
    assert parts in wrong(changed((parts,), []))


def test_a_manifest_cannot_be_changed():
    """What was checked stays so."""
    manifest = read(full())

    with pytest.raises(ValidationError, match="frozen"):
        manifest.version = 2  # type: ignore[misc]


probability = st.floats(0, 1)
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(words, min_size=2, max_size=6, unique=True),
    temperature=st.floats(0.01, 100),
    abstain=st.none() | probability,
    side=st.integers(1, 4096),
    tolerance=st.floats(1e-9, 1e9),
    provenance=st.dictionaries(words, words, max_size=3),
)
def test_what_was_written_is_what_is_read(**drawn):
    """Any valid manifest survives its own JSON, to the last bit of each number."""
    fields = manifest_fields("colors", Task.MULTICLASS, side=drawn["side"])
    fields["labels"] = [{"id": n, "name": n, "group": None} for n in drawn["names"]]
    fields["postprocess"] |= {
        "temperature": drawn["temperature"],
        "abstain_threshold": drawn["abstain"],
        "top_k": 1,
    }
    fields["graphs"][0]["golden_tolerance"] = drawn["tolerance"]
    fields["provenance"]["versions"] = drawn["provenance"]

    manifest = read(fields)

    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.model_dump(mode="json") == json.loads(json.dumps(fields))
