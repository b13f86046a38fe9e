"""events → **lines**: one JSON object an event, or colors on a terminal."""

import asyncio
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog
from structlog.dev import RichTracebackFormatter, plain_traceback
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import (
    EventDict,
    FilteringBoundLogger,
    Processor,
    WrappedLogger,
)

from classifier.texts import visible
from service.jsons import to_ascii_json
from service.settings import Settings

QUIET_S = 1.0  # between two lines of what would fill the log


def build_log(settings: Settings, stream: TextIO | None = None) -> FilteringBoundLogger:
    """The logger of one application; nothing global is configured."""
    stream = stream or sys.stdout
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    filtering: Any = structlog.make_filtering_bound_logger(level)
    json_lines = settings.log_format == "json" or (
        settings.log_format == "auto" and not stream.isatty()
    )
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Writer(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_json_renderer() if json_lines else _console_renderer(stream)),
        ],
        wrapper_class=(
            _with_quick_info(filtering)
            if json_lines and level <= logging.INFO
            else filtering
        ),
        cache_logger_on_first_use=True,
    )
    return logger.bind()


def _with_quick_info(filtering: Any) -> Any:
    """The same logger, whose `info` leaves out the chain of processors.

    A line for each request is nearly all that is ever logged: 6 µs instead of 9.
    """

    class QuickInfo(filtering):  # type: ignore[misc]  # made by structlog
        def info(self, event: str, **fields: object) -> None:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            fields |= {"event": event, "level": "info", "timestamp": now}
            self._logger.msg(to_ascii_json(fields))

    return QuickInfo


class _Writer(structlog.WriteLogger):
    """Writes lines as long as somebody reads them.

    A closed pipe or a full disk under the log must not stop requests or the drain, nor
    a letter that the terminal's encoding lacks.
    """

    def msg(self, message: str) -> None:
        """Write one line, or lose it."""
        try:
            super().msg(message)
        except (OSError, UnicodeError):
            return

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


# A frame's variables can be a client's image, and a line with them has many kilobytes.
_PRETTY = RichTracebackFormatter(show_locals=False)
_PLAIN = ExceptionDictTransformer(show_locals=False)


def _console_renderer(stream: TextIO) -> list[Processor]:
    colors = stream.isatty()
    show = _PRETTY if colors else plain_traceback
    return [
        _escape,
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=show),
    ]


def _escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A terminal obeys characters that a client may have put into a path.

    Tracebacks are as they are: they hold no client's text.
    """
    return {
        key: visible(value, kept="") if isinstance(value, str) else value
        for key, value in event.items()
    }


def _json_renderer() -> list[Processor]:
    return [structlog.processors.ExceptionRenderer(_PLAIN), _to_json]


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    return to_ascii_json(event)


class ForwardHandler(logging.Handler):
    """Carries what uvicorn and other libraries log into the same stream."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on, with its traceback."""
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return  # what the end of the service has cut off is no fault
        self._log.log(
            record.levelno,
            record.getMessage(),
            logger=record.name,
            exc_info=record.exc_info,
        )


@contextmanager
def forwarded(log: FilteringBoundLogger) -> Iterator[None]:
    """While this lasts, warnings and errors of uvicorn are lines of our log."""
    logger = logging.getLogger("uvicorn")
    handler = ForwardHandler(log)
    handler.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class Sparing:
    """What may happen very often, and gets a line a second at most."""

    def __init__(self) -> None:
        self._told_s = -math.inf
        self._untold = 0

    def untold(self) -> int | None:
        """How many had no line since the last one; None: this one has none, either."""
        now_s = time.monotonic()
        if now_s - self._told_s < QUIET_S:
            self._untold += 1
            return None
        untold, self._untold, self._told_s = self._untold, 0, now_s
        return untold
