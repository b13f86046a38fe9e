"""ticket → **decoded ticket**, or the error that is this image's alone."""

from collections.abc import Callable

from classifier.decode import DecodeLimits
from classifier.errors import ImageError
from classifier.manifest import PreprocessSpec
from classifier.preprocess import Preprocessed, preprocess
from service.contract import Settled
from service.engine.ticket import Ticket
from service.errors import EngineFailedError

Keep = Callable[[Ticket, Preprocessed], Preprocessed]


def as_it_is(_: Ticket, ready: Preprocessed) -> Preprocessed:
    """Keep what was decoded where it is."""
    return ready


def decode_ticket(
    ticket: Ticket,
    spec: PreprocessSpec,
    *,
    limits: DecodeLimits,
    keep: Keep = as_it_is,
) -> Settled | None:
    """Fill `ready` with what `keep` makes of the pixels, or return what went wrong."""
    try:
        ticket.ready = keep(ticket, preprocess(ticket.data, spec, limits=limits))
    except ImageError as error:
        return error
    except Exception as error:  # border: a fault of ours, this image's alone
        return EngineFailedError.caused_by(error, "the image could not be processed")
    return None
