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
from classifier.zips import unpacks_at_once

# One example of the largest side and of the most labels fits: 48 MiB and 1.2 MB.
MAX_BYTES = 64 * 2**20
MAX_EXAMPLES = 64


@dataclass(frozen=True, slots=True)
class Golden:
    """Examples of a bundle."""

    pixels: Batch  # uint8 [n, H, W, C]
    logits: Mapping[Precision, Logits]  # each float32 [n, K]


def write_golden(golden: Golden, manifest: Manifest) -> bytes:
    """The bytes of `golden.npz`.

    Raises:
        BundleError: `read_golden` would refuse them.
    """
    _check_arrays(golden, manifest)
    arrays: dict[str, npt.NDArray[np.generic]] = {"pixels": golden.pixels}
    for precision, logits in golden.logits.items():
        arrays[f"logits_{precision}"] = logits
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    _check_size(buffer, "golden.npz")
    return buffer.getvalue()


def read_golden(path: Path, manifest: Manifest) -> Golden:
    """Read and check `golden.npz`; no code in it can run and no size is believed.

    Raises:
        BundleError: missing, damaged, or not of the manifest's shapes.
    """
    try:
        _check_size(path, str(path))
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
    golden = Golden(pixels, logits)
    try:
        _check_arrays(golden, manifest)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return golden


def _check_size(archive: Path | BytesIO, name: str) -> None:
    with zipfile.ZipFile(archive) as members:
        found = members.infolist()
    if any(map(unpacks_at_once, found)):
        raise BundleError(f"{name} is compressed otherwise than by deflate")
    size = sum(member.file_size for member in found)
    if size > MAX_BYTES:
        raise BundleError(f"{name} unpacks to {size} bytes; {MAX_BYTES} are allowed")


def _check_arrays(golden: Golden, manifest: Manifest) -> None:
    n = len(golden.pixels) if np.ndim(golden.pixels) else 0
    _check_array("pixels", golden.pixels, np.uint8, (n, *manifest.preprocess.shape))
    if not 1 <= n <= MAX_EXAMPLES:
        raise BundleError(f"golden has {n} examples, not 1 to {MAX_EXAMPLES}")
    for graph in manifest.graphs:
        values = golden.logits.get(graph.precision)
        if values is None:
            raise BundleError(f"golden has no logits of {graph.precision}")
        name = f"logits_{graph.precision}"
        _check_array(name, values, np.float32, (n, manifest.logits))


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
