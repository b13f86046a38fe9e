"""`golden.npz` ↔ **Golden**: real inputs and the logits that they must give.

Replayed at load: a bundle that answers differently here than where it was made is
refused. Causes are a wrong graph, a broken build of ONNX Runtime, or the saturating
arithmetic of another processor.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError
from classifier.manifest import GraphVariant, Manifest, Precision
from classifier.session import Batch, Logits, Session

MAX_BYTES = 32 * 2**20
MAX_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Golden:
    """Examples of a bundle."""

    pixels: Batch  # uint8 [n, H, W, C]
    logits: Mapping[Precision, Logits]  # each float32 [n, K]


def write_golden(golden: Golden) -> bytes:
    """The bytes of `golden.npz`."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"pixels": golden.pixels}
    for precision, logits in golden.logits.items():
        arrays[f"logits_{precision}"] = logits.astype(np.float32)
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Read and check `golden.npz`; no code in it can run and no size is believed.

    Raises:
        BundleError: missing, damaged, or not of the manifest's shapes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise BundleError(
                f"{path} unpacks to {size} bytes; {MAX_BYTES} are allowed"
            )
        with np.load(path, allow_pickle=False) as arrays:
            pixels = arrays["pixels"]
            logits = {
                graph.precision: arrays[f"logits_{graph.precision}"]
                for graph in manifest.graphs
            }
    except BundleError:
        raise
    except (
        Exception
    ) as error:  # border: damage raises zlib.error, MemoryError, EOFError …
        raise BundleError(f"cannot read {path}: {error}") from error
    n = len(pixels) if np.ndim(pixels) else 0
    _check_array("pixels", pixels, np.uint8, (n, *manifest.preprocess.shape))
    if not 1 <= n <= MAX_EXAMPLES:
        raise BundleError(f"golden has {n} examples, not 1 to {MAX_EXAMPLES}")
    for precision, values in logits.items():
        name = f"logits_{precision}"
        _check_array(name, values, np.float32, (n, manifest.logits))
    return Golden(pixels, logits)


def _check_array(name: str, array: object, dtype: type, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):  # NumPy gives other members as their bytes
        raise BundleError(f"golden '{name}' is no array")
    if array.dtype != dtype or array.shape != shape:
        raise BundleError(
            f"golden '{name}' is {array.dtype} {list(array.shape)}; "
            f"{np.dtype(dtype)} {list(shape)} is needed"
        )


def replay(golden: Golden, session: Session, variant: GraphVariant) -> float:
    """Run every example and return the largest |logit error|.

    Raises:
        BundleError: the error is over the variant's tolerance.
    """
    expected = golden.logits[variant.precision]
    worst = 0.0
    for pixels, wanted in zip(golden.pixels, expected, strict=True):
        error = float(np.abs(session.run(pixels[None])[0] - wanted).max())
        # a NaN fails too: it is not <= anything
        if not error <= variant.golden_tolerance:
            raise BundleError(
                f"golden replay of {variant.file} on {session.device} is off by "
                f"{error:.4g}; {variant.golden_tolerance:.4g} is allowed. The graph "
                "answers differently here than where it was made"
            )
        worst = max(worst, error)
    return worst
