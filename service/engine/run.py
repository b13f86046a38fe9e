"""decoded tickets → **outcomes**: one run of all of them, and what each sender gets."""

import time
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from classifier.errors import SessionError
from classifier.postprocess import probabilities
from service.contract import Outcome, Settled, Timing
from service.engine.arrangement import Runs
from service.engine.isolation import run_isolated
from service.engine.models import EngineModel
from service.engine.ticket import Results, Ticket
from service.errors import EngineFailedError

Number = TypeVar("Number", np.uint8, np.float32)
Row = npt.NDArray[np.float32]  # [K]
Scored = tuple[Row, Row] | SessionError  # logits and their probabilities


def run_together(tickets: list[Ticket], model: EngineModel, session: Runs) -> Results:
    """Run the pixels of all in one go, and bisect the batch if that fails."""
    batch = stacked([ticket.ready.pixels for ticket in tickets if ticket.ready])
    began = time.monotonic()
    rows = run_isolated(session.run, batch)
    ended = time.monotonic()
    run = began, ended, len(rows)
    found = zip(tickets, scored(rows, model), strict=True)
    return [(ticket, outcome(ticket, row, run)) for ticket, row in found]


def stacked(each: Sequence[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Arrays of one shape → one array of all, [N, ...], in a single copy.

    `np.stack` gives the interpreter up for each of them, and where other threads are
    busy it waits as often until it has it again.
    """
    if len(each) == 1:
        return each[0][None]
    # the pixels of a ticket that was just abandoned have no memory of their own
    whole = [one if one.flags.c_contiguous else one.copy() for one in each]
    together = b"".join(whole)  # type: ignore[arg-type]  # an array is a buffer
    joined = np.frombuffer(together, each[0].dtype)
    return joined.reshape(len(each), *each[0].shape)


def explained(ticket: Ticket, model: EngineModel) -> Settled:
    """Run one image with its class maps, alone: few ask, and the maps are large."""
    if ticket.ready is None:
        raise AssertionError("a ticket was run before it was decoded")
    began = time.monotonic()
    try:
        # float32 [1, K] and [1, K, h, w]
        logits, maps = model.session.run_with_class_maps(ticket.ready.pixels[None])
    except SessionError as error:
        return outcome(ticket, error, (began, began, 1))
    run = began, time.monotonic(), 1
    (row,) = scored([logits[0]], model)
    return outcome(ticket, row, run, class_maps=maps[0])


def scored(rows: Sequence[Row | SessionError], model: EngineModel) -> list[Scored]:
    """Logits, float32 [K] each, with their probabilities; errors stay as they are."""
    sound = [row for row in rows if not isinstance(row, SessionError)]
    if not sound:
        return [row for row in rows if isinstance(row, SessionError)]
    spec = model.manifest.postprocess
    scores = iter(probabilities(stacked(sound), spec))  # each float32 [K]
    return [
        row if isinstance(row, SessionError) else (row, next(scores)) for row in rows
    ]


def outcome(
    ticket: Ticket,
    row: Scored,
    run: tuple[float, float, int],
    *,
    class_maps: npt.NDArray[np.float32] | None = None,  # [K, h, w]
) -> Settled:
    """One row of a run (begin, end, batch size) → what its ticket's sender gets."""
    if isinstance(row, SessionError):
        return EngineFailedError.caused_by(row, "the model failed on this image")
    if ticket.ready is None:
        raise AssertionError("a ticket was run before it was decoded")
    began, ended, batch_size = run
    return Outcome(
        logits=row[0],
        scores=row[1],
        image=ticket.ready.image,
        warnings=ticket.ready.warnings,
        timing=Timing(
            decode_ms=1000 * (ticket.ahead_s + ticket.decoded - ticket.taken),
            queue_ms=1000 * (ticket.taken - ticket.arrived - ticket.ahead_s),
            batch_ms=1000 * (began - ticket.decoded),
            infer_ms=1000 * (ended - began),
            batch_size=batch_size,
        ),
        class_maps=class_maps,
    )
