"""One JSON object an event, or colors on a terminal; and no end by what is logged."""

import json
import logging
import math
import time
from datetime import UTC, datetime
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest

from service import logs
from service.logs import Sparing, build_log, forwarded
from service.settings import Settings

FULL = Path("/dev/full")
LEVELS = ("debug", "info", "warning", "error")


class Terminal(StringIO):
    """Where somebody looks."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("lowest", LEVELS)
def test_what_is_below_the_lowest_level_is_not_logged(log_format, lowest):
    """And the rest is, in the format that was asked for."""
    stream = StringIO()
    log = build_log(Settings(log_level=lowest, log_format=log_format), stream)

    for level in LEVELS:
        getattr(log, level)("what happened", here=level)

    lines = stream.getvalue().splitlines()
    assert len(lines) == len(LEVELS[LEVELS.index(lowest) :])
    for line, level in zip(lines, LEVELS[LEVELS.index(lowest) :], strict=True):
        if log_format == "json":
            event = json.loads(line)
            assert (event["event"], event["level"]) == ("what happened", level)
            assert event["here"] == level
        else:
            assert f"[{level}" in line
            assert f"what happened                  here={level}" in line


@pytest.mark.parametrize(
    ("log_format", "stream", "json_lines", "colors"),
    [
        ("auto", StringIO, True, False),
        ("auto", Terminal, False, True),
        ("console", StringIO, False, False),
        ("json", Terminal, True, False),
    ],
)
def test_lines_are_json_unless_somebody_looks(log_format, stream, json_lines, colors):
    """A traceback is drawn with colors for eyes alone, too, and without variables."""
    written, image = stream(), "the bytes of " + "a photo"
    log = build_log(Settings(log_format=log_format), written)

    log.info("first")
    try:
        raise ValueError(f"broken after {len(image)} bytes")
    except ValueError as error:
        log.error("second", exc_info=error)

    text = written.getvalue()
    assert text.startswith('{"') == json_lines
    assert ("\x1b[" in text) == colors
    assert ("╭" in text) == colors
    assert image not in text


def test_the_time_of_a_line_is_in_utc(monkeypatch):
    """Of each level, wherever the machine is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    stream = StringIO()
    try:
        log, before = build_log(Settings(log_format="json"), stream), datetime.now(UTC)
        log.info("quick")
        log.warning("with the processors")
    finally:
        monkeypatch.undo()
        time.tzset()

    for line in stream.getvalue().splitlines():
        said = json.loads(line)["timestamp"]
        assert said.endswith("Z")
        assert before <= datetime.fromisoformat(said) <= datetime.now(UTC)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has such a device")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_full_disk_under_the_log_loses_the_line_and_no_more(log_format):
    """Requests and the drain go on."""
    # unbuffered: what is refused is not tried again at the end
    with FULL.open("wb", buffering=0) as full, TextIOWrapper(full) as stream:
        log = build_log(Settings(log_format=log_format), stream)
        log.info("quick")
        log.error("with the processors")


def test_a_letter_that_the_terminal_lacks_loses_the_line_and_no_more():
    """A request would fail where its client has chosen the letter."""
    written = BytesIO()
    with TextIOWrapper(written, "ascii", write_through=True) as stream:
        log = build_log(Settings(log_format="console"), stream)
        log.info("quick", path="/ä")
        log.info("and on")

        assert b"and on" in written.getvalue()


def test_what_a_client_wrote_is_no_order_to_the_terminal():
    """Its title, its screen and what it hides are nobody else's."""
    stream = Terminal()
    log = build_log(Settings(log_format="console"), stream)

    log.warning("request", path="/\x1b]0;owned\x07\x1b[2J\x9b2Jä\u202e")

    assert r"/\x1b]0;owned\x07\x1b[2J\x9b2Jä\u202e" in stream.getvalue()
    assert "\x1b]" not in stream.getvalue()


def test_warnings_of_libraries_are_lines_with_their_logger_and_cause(caplog):
    """While it lasts; what they only tell is not passed on."""
    stream, uvicorn = StringIO(), logging.getLogger("uvicorn.error")
    caplog.set_level(logging.INFO, uvicorn.name)
    with forwarded(build_log(Settings(log_format="json"), stream)):
        uvicorn.info("news")
        uvicorn.warning("%s broken", 2)
        try:
            raise ValueError("it is")
        except ValueError:
            uvicorn.exception("gone")
    uvicorn.warning("later")

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["level"]) == ("2 broken", "warning")
    assert (second["event"], second["level"]) == ("gone", "error")
    assert first["logger"] == second["logger"] == "uvicorn.error"
    assert second["exception"][0]["exc_value"] == "it is"


def test_what_happens_often_has_a_line_at_times_with_the_number_of_the_others(
    monkeypatch,
):
    """The first has one at once."""
    sparing = Sparing()

    first = sparing.untold()
    monkeypatch.setattr(logs, "QUIET_S", math.inf)
    soon = [sparing.untold(), sparing.untold()]
    monkeypatch.setattr(logs, "QUIET_S", 0)
    later = [sparing.untold(), sparing.untold()]

    assert (first, soon, later) == (0, [None, None], [2, 0])
