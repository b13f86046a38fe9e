"""events → **lines**: one JSON object an event, or colors on a terminal."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import structlog
from structlog.typing import (
    EventDict,
    FilteringBoundLogger,
    Processor,
    WrappedLogger,
)

from service.settings import Settings

ENCODER = json.JSONEncoder(default=repr, separators=(",", ":"))


def build_log(settings: Settings, stream: TextIO | None = None) -> FilteringBoundLogger:
    """The logger of one application; nothing global is configured."""
    stream = stream or sys.stdout
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Writer(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderer(settings, stream),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    return logger.bind()


class _Writer(structlog.WriteLogger):
    """Writes lines as long as somebody reads them.

    A closed pipe or a full disk under the log must not stop requests or the drain.
    """

    def msg(self, message: str) -> None:
        """Write one line, or lose it."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _renderer(settings: Settings, stream: TextIO) -> list[Processor]:
    style = settings.log_format
    if style == "auto":
        style = "console" if stream.isatty() else "json"
    if style == "console":
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    return [structlog.processors.dict_tracebacks, _to_json]


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    # structlog's own renderer builds an encoder for each line
    return ENCODER.encode(event)


class ForwardHandler(logging.Handler):
    """Carries what uvicorn and other libraries log into the same stream."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on, with its traceback."""
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
