"""messages ↔ **frames** between a front-end and the engine's process.

Pixels and scores stay in the shared slots, so the message of an image has some tens of
bytes; class maps come in the message. Both ends are processes of one service at one
version: the format needs no compatibility.
"""

import asyncio
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from service.errors import (
    DeadlineExceededError,
    DrainingError,
    EngineFailedError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)

LENGTH = struct.Struct("<I")
REQUEST = struct.Struct("<Q")  # the numbers of a front-end never begin again
SUBMIT = struct.Struct("<QHBdH")  # request, model, explain, deadline, images
RESULT = struct.Struct("<QHHff")  # request, position, batch size, milliseconds
FAILED = struct.Struct("<QH")  # request, position; the rest is JSON
MAPS = struct.Struct("<III")  # K, h, w of class maps; the rest is float32
WHOLE_REQUEST = 0xFFFF

# What an engine refuses or breaks with, by the code that names it on the wire.
ERRORS: dict[str, type[ServiceError]] = {
    error.code: error
    for error in (
        DeadlineExceededError,
        DrainingError,
        EngineFailedError,
        NotReadyError,
        OverloadedError,
    )
}


@dataclass(frozen=True, slots=True)
class Hello:
    """Front-end → engine, first: which of the front-ends this is."""

    number: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Front-end → engine: run the images in these slots, all or none."""

    request: int
    model: int  # its place in the greeting's list
    explain: bool
    deadline: float | None  # of the system's monotonic clock, which processes share
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Front-end → engine: nobody waits for that request.

    It is answered by `Failed`, unless what ends the request is on its way already; the
    slots are the engine's until then.
    """

    request: int


@dataclass(frozen=True, slots=True)
class Result:
    """Engine → front-end: the result of an image is in its slot."""

    request: int
    position: int
    batch_size: int
    batch_ms: float
    infer_ms: float
    maps: bytes = b""  # MAPS and float32 [K, h, w], when asked for

    @property
    def class_maps(self) -> npt.NDArray[np.float32] | None:
        """float32 [K, h, w], where they were asked for."""
        if not self.maps:
            return None
        shape = MAPS.unpack_from(self.maps)
        return np.frombuffer(self.maps, np.float32, offset=MAPS.size).reshape(shape)


@dataclass(frozen=True, slots=True)
class Failed:
    """Engine → front-end: an image, or the whole request, has no result."""

    request: int
    position: int
    code: str
    detail: str
    retry_after_s: float | None

    @classmethod
    def of(cls, request: int, position: int, error: Exception) -> "Failed":
        """The message for any error of an engine."""
        known = isinstance(error, ServiceError) and error.code in ERRORS
        code = error.code if known else EngineFailedError.code  # type: ignore[attr-defined]
        retry_after_s = getattr(error, "retry_after_s", None)
        detail = str(error)
        if code == EngineFailedError.code and error.__cause__ is not None:
            detail += f": {error.__cause__}"  # for the log over there, not for a client
        return cls(request, position, code, detail, retry_after_s)

    @property
    def error(self) -> ServiceError:
        """The error that this message stands for."""
        kind = ERRORS.get(self.code, EngineFailedError)
        if issubclass(kind, UnavailableError) and self.retry_after_s is not None:
            return kind(self.detail, retry_after_s=self.retry_after_s)
        return kind(self.detail)


class SharedModel(NamedTuple):
    """A model of the engine's process: its bundle, and how it is served there."""

    name: str
    version: int
    precision: str
    device: str
    explains: bool
    image_s: float  # seconds an image with all lanes at it


@dataclass(frozen=True, slots=True)
class State:
    """Engine → front-end: why no image should come, or None.

    The first one, which answers `Hello`, also lists the models.
    """

    trouble: str | None
    models: tuple[SharedModel, ...] = ()


Message = Hello | Submit | Withdraw | Result | Failed | State


def pack(message: Message) -> bytes:
    """The frame of a message, with its length before it."""
    match message:
        case Hello(number):
            body = b"H" + LENGTH.pack(number)
        case Submit(request, model, explain, deadline, slots):
            until = math.inf if deadline is None else deadline
            body = b"S" + SUBMIT.pack(request, model, explain, until, len(slots))
            body += struct.pack(f"<{len(slots)}I", *slots)
        case Withdraw(request):
            body = b"W" + REQUEST.pack(request)
        case Result(request, position, size, batch_ms, infer_ms, maps):
            body = b"R" + RESULT.pack(request, position, size, batch_ms, infer_ms)
            body += maps
        case Failed(request, position, code, detail, retry_after_s):
            body = b"F" + FAILED.pack(request, position)
            body += json.dumps([code, detail, retry_after_s]).encode()
        case State(trouble, models):
            body = b"T" + json.dumps([trouble, models]).encode()
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes) -> Message:
    """The message of a frame, without its length."""
    kind, rest = body[:1], body[1:]
    match kind:
        case b"H":
            return Hello(*LENGTH.unpack(rest))
        case b"S":
            request, model, explain, until, count = SUBMIT.unpack_from(rest)
            slots = struct.unpack_from(f"<{count}I", rest, SUBMIT.size)
            deadline = None if until == math.inf else until
            return Submit(request, model, bool(explain), deadline, slots)
        case b"W":
            return Withdraw(*REQUEST.unpack(rest))
        case b"R":
            request, position, size, batch, infer = RESULT.unpack_from(rest)
            maps = rest[RESULT.size :]
            return Result(request, position, size, batch, infer, maps)
        case b"F":
            return Failed(*FAILED.unpack_from(rest), *json.loads(rest[FAILED.size :]))
    trouble, models = json.loads(rest)
    return State(trouble, tuple(SharedModel(*model) for model in models))


class Link(asyncio.Protocol):
    """One end of the connection: whole messages in and out."""

    def __init__(
        self, heard: Callable[["Link", Message], None], lost: Callable[["Link"], None]
    ) -> None:
        self._heard = heard
        self._lost = lost
        self._buffer = bytearray()
        self._to_send: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None

    def send(self, message: Message) -> None:
        """Write it, unless the other end is gone.

        What is sent in one turn of the loop goes in one write: a batch settles many.
        """
        self._to_send.append(pack(message))
        if len(self._to_send) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """End the connection, once all is written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to write to it."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def _flush(self) -> None:
        frames, self._to_send = self._to_send, []
        if frames and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(frames))

    def data_received(self, data: bytes) -> None:
        """Cut what has come into messages; the rest waits for more."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer, start)
            end = start + LENGTH.size + length
            if end > len(self._buffer):
                break
            body = bytes(self._buffer[start + LENGTH.size : end])
            start = end
            self._heard(self, unpack(body))
        del self._buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """The other process is gone, or this one closed."""
        self._lost(self)
