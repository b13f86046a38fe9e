"""What can go wrong between a bundle, an image and a prediction, one class an arrow.

bundle ──BundleError──► session ──SessionError──► logits
bytes ──ImageError──► pixels            request ──RequestError──► prediction

Each carries a stable machine-readable `code`. Those of images and requests have an HTTP
status in `service/problems.py`; a client learns no more of the others than that the
engine, or the service, has failed.
"""


class ClassifierError(Exception):
    """Root of every error that this package raises on purpose."""

    code = "classifier_error"


class BundleError(ClassifierError):
    """A bundle is missing, incomplete, altered, or of an unknown schema."""

    code = "bundle_invalid"


class SessionError(ClassifierError):
    """ONNX Runtime cannot load or run a graph on the device asked for."""

    code = "session_failed"


class DeviceUnavailableError(SessionError):
    """The device that was asked for does not really work here."""

    code = "device_unavailable"


class OutOfMemoryError(SessionError):
    """The device has no room for this batch; a smaller one may fit."""

    code = "out_of_memory"


class RequestError(ClassifierError):
    """A parameter of a request (top_k, threshold) is outside what the model allows."""

    code = "invalid_parameter"


class ImageError(ClassifierError):
    """Bytes that do not become pixels."""

    code = "image_invalid"


class EmptyImageError(ImageError):
    """No bytes at all."""

    code = "image_empty"


class ImageFormatError(ImageError):
    """The bytes are not an image of a format on the allow-list."""

    code = "image_format_unsupported"


class ImageTooLargeError(ImageError):
    """More pixels are declared than the cap, or decoding them needs more memory
    than there is.
    """

    code = "image_too_many_pixels"


class ImageDecodeError(ImageError):
    """The format is right and the content damaged or cut off."""

    code = "image_undecodable"
