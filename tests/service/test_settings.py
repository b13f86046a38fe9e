"""Every setting is documented as it is, and a wrong one is named."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from classifier.device import DeviceChoice
from classifier.variant import PrecisionChoice
from service.errors import SettingsError
from service.settings import Settings, load_settings

ROW = re.compile(r"^\| `(LINNAEUS_\w+)` \| (.*?) \| (.*) \|$", re.MULTILINE)

SECONDS = (
    "LINNAEUS_HANG_TIMEOUT_S",
    "LINNAEUS_DRAIN_NOTICE_S",
    "LINNAEUS_DRAIN_TIMEOUT_S",
)


@pytest.fixture(scope="module")
def table(repository: Path) -> dict[str, tuple[str, str]]:
    """docs/settings.md: name → default, meaning."""
    rows = ROW.findall((repository / "docs" / "settings.md").read_text())
    return {name: (default, meaning) for name, default, meaning in rows}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_documented_with_its_default_and_meaning(name, table):
    """The table for people and the class are the same table."""
    field = Settings.model_fields[name]
    default, meaning = table[f"LINNAEUS_{name.upper()}"]

    assert meaning == field.description
    unset = field.default in (None, ())
    assert default == ("*(not set)*" if unset else f"`{field.default}`")


def test_a_setting_that_has_a_most_says_it():
    """Who sets more should know before the process does not start."""
    silent = []
    for name, shape in Settings.model_json_schema()["properties"].items():
        kinds = shape.get("anyOf", [shape])
        most = [kind["maximum"] for kind in kinds if "maximum" in kind]
        said = Settings.model_fields[name].description
        silent += [name for number in most if f"{number:,.0f}" not in said]

    assert silent == ["port"]  # which is none above 65,535


def test_of_most_settings_one_is_the_least():
    """None at all means something to few of them, and time for a run there must be."""
    bounds = {}
    for name, shape in Settings.model_json_schema()["properties"].items():
        kinds = shape.get("anyOf", [shape])
        for kind in kinds:
            if kind.get("type") in {"integer", "number"}:
                least = {"minimum", "exclusiveMinimum"} & kind.keys()
                bounds[name] = {bound: kind[bound] for bound in least}

    none = {"port", "drain_notice_s", "drain_timeout_s"}
    assert bounds.pop("hang_timeout_s") == {"exclusiveMinimum": 0}
    assert {name for name in bounds if bounds[name] == {"minimum": 0}} == none
    assert all(bounds[name] == {"minimum": 1} for name in bounds.keys() - none)


def test_the_documentation_has_no_setting_that_does_not_exist(table):
    """What is documented works."""
    assert set(table) == {f"LINNAEUS_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LINNAEUS_PORT", "70000", ["'70000'", "65535"]),
        ("LINNAEUS_DEVICE", "gpu", ["'gpu': input should be 'auto', 'cpu' or 'cuda'"]),
        ("LINNAEUS_MAX_PIXELS", "0", ["'0'", "greater than or equal to 1"]),
        ("LINNAEUS_MAX_PIXELS", "200000000", ["'200000000'", "178956970"]),
        ("LINNAEUS_PROT", "80", ["not a setting", "did you mean LINNAEUS_PORT?"]),
        ("linnaeus_prot", "80", ["not a setting", "did you mean LINNAEUS_PORT?"]),
        ("LINNAEUS_XYZZY", "1", ["not a setting", "docs/settings.md"]),
        ("LINNAEUS_PORT", "tcp://10.0.0.1:80", ["enableServiceLinks"]),
        ("LINNAEUS_QUEUE_CAPACITY", "32", ["'32'", "LINNAEUS_MAX_BATCH_ITEMS", "64"]),
        ("LINNAEUS_MAX_BATCH_ITEMS", "0", ["'0'", "greater than or equal to 1"]),
        (
            "LINNAEUS_MAX_BATCH_ITEMS",
            "300",
            ["QUEUE_CAPACITY is '256'", "300", "a batch of"],
        ),
        ("LINNAEUS_MAX_BUFFERED_BYTES", "9", ["'9'", "MAX_BODY_BYTES", "20971520"]),
        ("LINNAEUS_MAX_BATCH_BODY_BYTES", "536870913", ["BUFFERED_BYTES is", "a body"]),
        *[(name, "inf", ["'inf'", "86400"]) for name in SECONDS],
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(
    monkeypatch, variable, value, said
):
    """Also a mistyped name: it would silently configure nothing."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as error:
        load_settings()

    for text in (variable, *said):
        assert text in str(error.value)
    assert ("Service" in str(error.value)) == value.startswith("tcp:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("device", get_args(DeviceChoice)),
        ("precision", get_args(PrecisionChoice)),
        ("engine", ("auto", "own", "shared")),
        ("decode", ("auto", "lane", "ahead")),
        ("log_level", ("debug", "info", "warning", "error")),
        ("log_format", ("auto", "console", "json")),
    ],
)
def test_each_word_that_a_setting_has_is_taken(monkeypatch, name, words):
    """Of device and precision, those that the library and the options have."""
    for word in words:
        monkeypatch.setenv(f"LINNAEUS_{name.upper()}", word)

        assert getattr(load_settings(), name) == word


@pytest.mark.parametrize("variable", ["LINNAEUS_PORT", "LINNAEUS_PROT"])
def test_a_variable_with_an_empty_value_counts_as_not_set(monkeypatch, variable):
    """Also a mistyped one: with nothing in it, it would have set nothing."""
    monkeypatch.setenv(variable, "")

    assert load_settings().port == Settings.model_fields["port"].default


def test_a_queue_that_holds_just_the_largest_batch_is_large_enough(monkeypatch):
    """What waits as a whole must fit as a whole."""
    monkeypatch.setenv("LINNAEUS_QUEUE_CAPACITY", "64")

    assert load_settings().queue_capacity == load_settings().max_batch_items


def test_a_buffer_that_holds_just_the_largest_body_is_large_enough(monkeypatch):
    """One body may take all of it."""
    monkeypatch.setenv("LINNAEUS_MAX_BUFFERED_BYTES", str(64 * 2**20))

    settings = load_settings()

    assert settings.max_buffered_bytes == settings.max_batch_body_bytes


def test_every_wrong_setting_is_named_at_once(monkeypatch):
    """Nobody has to start the server once for each mistake."""
    monkeypatch.setenv("LINNAEUS_PORT", "x")
    monkeypatch.setenv("LINNAEUS_LOG_LEVEL", "loud")

    with pytest.raises(SettingsError, match=r"(?s)LINNAEUS_PORT.*LINNAEUS_LOG_LEVEL"):
        load_settings()


@pytest.mark.parametrize("name", ["LINNAEUS_DATA", "linnaeus_data"])
def test_the_variable_of_the_tests_is_not_a_mistake(monkeypatch, name):
    """LINNAEUS_DATA belongs to the tests and the training commands."""
    monkeypatch.setenv(name, "somewhere")

    assert load_settings().port == Settings.model_fields["port"].default


def test_an_argument_goes_before_the_environment(monkeypatch):
    """`linnaeus serve --port 1` means 1, whatever LINNAEUS_PORT is."""
    monkeypatch.setenv("LINNAEUS_PORT", "2")

    assert load_settings(port=1).port == 1


def test_bundles_to_load_are_a_list_with_commas(monkeypatch):
    """As people write lists in an environment, not JSON."""
    monkeypatch.setenv("LINNAEUS_LOAD", "imagenet, dog/2, ,")

    assert load_settings().load == ("imagenet", "dog/2")


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_variable_without_a_value_is_not_set(monkeypatch, name):
    """As a line `LINNAEUS_DEFAULT_MODEL=` of an environment file means it."""
    monkeypatch.setenv(f"LINNAEUS_{name.upper()}", "")

    assert getattr(load_settings(), name) == Settings.model_fields[name].default


def test_settings_never_change():
    """They are built once and handed down."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1
