"""request ──► **answer**, and what can go wrong on the way, one class an arrow.

socket ──Body…Error, MediaTypeError, MalformedRequestError──► images
query ──InvalidParameterError, ModelNotFoundError──► parameters
images ──OverloadedError, DrainingError, DeadlineExceeded…, EngineFailed…──► logits

Each carries a stable machine-readable `code`. Errors of the images themselves come from
`classifier.errors`; `service/problems.py` has the HTTP status of every code.
"""

from collections.abc import Mapping
from typing import Self

from classifier.errors import BundleError, ClassifierError

MAX_SHOWN = 80  # characters of what is refused that its error repeats


class SettingsError(ValueError):
    """A setting is unknown or has a value that is not allowed; the text says which."""


class EngineUnreachableError(ClassifierError):
    """The process that has the engine does not answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the engine's process does not answer: {reason}")


class LeaderGoneError(ClassifierError):
    """The process that has started this one has ended, and with it the service."""

    def __init__(self) -> None:
        super().__init__("the process that has started this one has ended")


class BundleChangedError(BundleError):
    """A bundle is not the one that the first process of this service has loaded."""


class ServiceError(Exception):
    """Root of what the service refuses on purpose; the text is shown to the client."""

    code = "internal_error"

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers that belong to this error."""
        return {}


class MalformedRequestError(ServiceError):
    """The body is not the multipart, JSON or base64 that it claims to be."""

    code = "malformed_request"


class EmptyBodyError(ServiceError):
    """There is nothing where the image should be."""

    code = "image_empty"


class RouteNotFoundError(ServiceError):
    """No such path."""

    code = "route_not_found"


class ModelNotFoundError(ServiceError):
    """No such model, or no such version of it, is loaded."""

    code = "model_not_found"


class MethodNotAllowedError(ServiceError):
    """The path exists and does not take this method."""

    code = "method_not_allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow

    @property
    def headers(self) -> Mapping[str, str]:
        """`Allow`, which RFC 9110 requires here."""
        return {"Allow": self.allow}


class BodyTimeoutError(ServiceError):
    """The client did not finish sending its body in time."""

    code = "body_timeout"

    @property
    def headers(self) -> Mapping[str, str]:
        """The rest of the body would be read as the next request: close instead."""
        return {"Connection": "close"}


class BodyTooLargeError(ServiceError):
    """The body, or one image in it, has more bytes than are accepted."""

    code = "body_too_large"

    @property
    def headers(self) -> Mapping[str, str]:
        """What the client still wants to send is not read."""
        return {"Connection": "close"}


class TooManyImagesError(ServiceError):
    """More images than one batch request may carry."""

    code = "too_many_images"


class MediaTypeError(ServiceError):
    """The `Content-Type` or `Content-Encoding` is not one that this route takes."""

    code = "media_type_unsupported"

    def __init__(
        self, detail: str, *, accept: str, encodings: str = "identity"
    ) -> None:
        super().__init__(detail)
        self.accept = accept
        self.encodings = encodings

    @property
    def headers(self) -> Mapping[str, str]:
        """`Accept-Post` and `Accept-Encoding`: what would have been taken."""
        return {"Accept-Post": self.accept, "Accept-Encoding": self.encodings}


class InvalidParameterError(ServiceError):
    """A query parameter or a field of the body is not what is allowed there."""

    code = "invalid_parameter"


class EngineFailedError(ServiceError):
    """The engine broke under this image. The cause is in the log, not in the answer."""

    code = "engine_failed"

    @classmethod
    def caused_by(cls, cause: Exception, text: str) -> Self:
        """The error to settle an image with, without raising it here."""
        error = cls(text)
        error.__cause__ = cause
        return error


class ItemError(ServiceError):
    """The error of one item of a request whose answer has no place for such errors.

    The code and the status are those of the cause; see `problem_of`.
    """

    def __init__(self, item: str, cause: Exception) -> None:
        super().__init__(f"{item}: {cause}")
        self.item = item
        self.cause = cause


class UnavailableError(ServiceError):
    """Not now: the same request may be answered after `retry_after_s` seconds."""

    code = "not_ready"  # the root, too, has a code that clients know

    def __init__(self, detail: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        """`Retry-After` in whole seconds, at least 1 (RFC 9110 knows no fractions).

        The nearest: rounded up, 1.01 s would be told as nearly twice what it is.
        """
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}


class OverloadedError(UnavailableError):
    """The queue is full, or could not serve this request before its deadline."""

    code = "overloaded"


class DrainingError(UnavailableError):
    """The process is about to stop and finishes only what it has accepted."""

    code = "draining"

    def __init__(
        self,
        detail: str = "the service is stopping; another process may answer",
        *,
        retry_after_s: float = 1.0,
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)

    @property
    def headers(self) -> Mapping[str, str]:
        """The next try should reach another process, so this connection ends."""
        return {**super().headers, "Connection": "close"}


class NotReadyError(UnavailableError):
    """No lane can serve just now, though the process lives."""

    code = "not_ready"


class DeadlineExceededError(ServiceError):
    """The request was accepted and its answer did not come in time."""

    code = "deadline_exceeded"


def cut(text: str) -> str:
    """As much of a client's text as an error repeats."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


def shown(text: str) -> str:
    """The same in quotes, with escapes for what cannot be printed."""
    return repr(cut(text))
