"""data of a tensor ⇄ **images, pixels, numbers and texts**.

Binary tensors are little-endian and row-major; an element of BYTES is its length, four
bytes, and so many bytes (Triton's binary tensor data extension).
"""

import math
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt

from service.errors import MalformedRequestError
from service.images import decode_base64

LENGTH = struct.Struct("<I")
UINT8_MAX = 255

Shape = tuple[int, ...]


def unpack_bytes(data: memoryview, count: int) -> list[bytes]:
    """A binary BYTES tensor → its elements.

    Raises:
        MalformedRequestError: it does not hold exactly so many.
    """
    elements, start = [], 0
    for position in range(count):
        begin = start + LENGTH.size
        if begin > len(data):
            raise _ends_early(position)
        (length,) = LENGTH.unpack_from(data, start)
        start = begin + length
        if start > len(data):
            raise _ends_early(position)
        elements.append(bytes(data[begin:start]))
    if start < len(data):
        raise MalformedRequestError(
            f"image goes on for {len(data) - start} bytes after its {count} elements"
        )
    return elements


def pack_bytes(elements: Iterable[bytes]) -> bytes:
    """Elements → a binary BYTES tensor."""
    return b"".join(LENGTH.pack(len(element)) + element for element in elements)


def unpack_pixels(data: memoryview, shape: Shape) -> npt.NDArray[np.uint8]:
    """A binary UINT8 tensor, without copying it.

    Raises:
        MalformedRequestError: it has another size.
    """
    needed = math.prod(shape)
    if len(data) != needed:
        raise MalformedRequestError(
            f"pixels has {len(data)} bytes; shape {list(shape)} needs {needed}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def pack_floats(values: npt.NDArray[np.float32]) -> bytes:
    """float32 of any shape → a binary FP32 tensor."""
    return values.astype("<f4", copy=False).tobytes()


def read_base64(data: object, count: int) -> list[bytes]:
    """A list of so many base64 texts, as JSON has no bytes.

    Raises:
        MalformedRequestError: it is no such list.
    """
    texts = _row(data, count, "image")
    return [decode_base64(text, f"image[{n}]") for n, text in enumerate(texts)]


def read_numbers(data: object, shape: Shape) -> npt.NDArray[np.uint8]:
    """UINT8 as JSON, flat or nested as its shape.

    Raises:
        MalformedRequestError: another number of elements, or one that is not 0 to 255.
    """
    if isinstance(data, list) and data and isinstance(data[0], list):
        flat = data = _row(data, shape[0], "pixels")
        for size in shape[1:]:
            rows = [_row(row, size, "pixels") for row in flat]
            flat = list(chain.from_iterable(rows))
    else:
        flat = _row(data, math.prod(shape), "pixels")
    if bool in set(map(type, flat)):
        raise MalformedRequestError("pixels holds true or false; numbers are needed")
    try:
        # no numpy here: it would take 1.7 and "1" for 1, and 256 for 0
        values = bytes(cast("Sequence[int]", flat))
    except (TypeError, ValueError) as error:
        raise MalformedRequestError(
            f"pixels holds what is no whole number from 0 to {UINT8_MAX}"
        ) from error
    return np.frombuffer(values, np.uint8).reshape(shape)


def _row(data: object, size: int, name: str) -> Sequence[object]:
    if not isinstance(data, list):
        raise MalformedRequestError(f"data of {name} is not a list of {size} elements")
    if len(data) != size:
        raise MalformedRequestError(
            f"data of {name} has a list of {len(data)} elements; its shape needs {size}"
        )
    return data


def _ends_early(position: int) -> MalformedRequestError:
    return MalformedRequestError(f"image ends within its element {position}")
