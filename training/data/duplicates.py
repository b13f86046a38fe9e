"""thumbnails → **pairs** of images that are one picture, saved anew or not.

Equal difference hashes of a small gray copy bring two images together, and how well
their thumbnails correlate decides. Axes: N images, P pairs, D = 16 x 16 x 3 values.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = 16  # pixels a side
HASH_SIDE = 8  # 8 x 8 comparisons across and as many down: 128 bits
BANDS = 8  # two images meet where one of eight bands of their hashes is equal
# A band that so many images share (a black border, a blank page) says nothing; they
# meet only where the whole hash is equal. Where that too is shared by so many (the
# frames of a fixed camera), each meets its neighbors in brightness, which it hides.
COMMON = 40
# How much a correlation may lack of 1, per part of the thumbnail that has the contrast
# (`spread`, 0.4 in a photo): strokes on an empty page are soon like each other. Of that
# part photos of cats-dogs, VOC and the fruit (200 pixels) lack up to 0.001 as a PNG,
# 0.009 as a JPEG of quality 30, 0.008 when brightened by a tenth, 0.022 at half the
# size, 0.04 at a third (30 each). Of all 4,799 two taken one after the other lack 0.03,
# two of different things 0.1. Of MNIST's 70,000 digits no two come nearer than 0.033.
UNLIKE = 0.03
AT_ONCE = 256  # pairs that are compared together: they stay in the cache

Thumbnails = NDArray[np.uint8]  # [N, 16, 16, 3]
Keys = NDArray[np.int64]  # [N], equal where what they stand for is equal
Patterns = NDArray[np.float16]  # [N, D]; half precision, as there may be a million
Pairs = NDArray[np.int64]  # [P, 2], positions, the lower one first


def same_pictures(
    digests: Sequence[bytes], thumbnails: Thumbnails
) -> Iterator[tuple[int, int, bool]]:
    """Positions of two images that are one picture, and whether their bytes are equal.

    `digests` are hashes of their files. An image without any contrast is told by its
    bytes alone. A file copied a thousand times is told of by its neighbors, not by all
    pairs.
    """
    files = _keys(np.array(digests, np.bytes_))
    patterns, spread = _standard(thumbnails)
    pairs = _candidates(files, thumbnails)
    for some in np.array_split(pairs, -(-len(pairs) // AT_ONCE) or 1):
        a, b = some.T
        exact = files[a] == files[b]
        bound = UNLIKE * np.minimum(spread[a], spread[b])
        found = exact | (1 - _correlation(patterns[a], patterns[b]) < bound)
        for first, second, same_file in zip(
            a[found], b[found], exact[found], strict=True
        ):
            yield int(first), int(second), bool(same_file)


def _standard(thumbnails: Thumbnails) -> tuple[Patterns, NDArray[np.float32]]:
    """Thumbnails of mean 0 and length 1, [N, D], and the spread of each, [N].

    So brightness and contrast cancel out, and colors do not. The spread is the part of
    the thumbnail that makes its contrast, 1 / D to 1.
    """
    patterns = np.empty((len(thumbnails), thumbnails[0].size), np.float16)
    spread = np.empty(len(thumbnails), np.float32)
    for start in range(0, len(thumbnails), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        flat = thumbnails[part].reshape(-1, patterns.shape[1]).astype(np.float32)
        flat -= flat.mean(1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True).clip(min=1e-6)
        patterns[part] = flat
        squares = np.square(flat)
        spread[part] = 1 / (flat.shape[1] * np.square(squares).sum(1)).clip(min=1)
    return patterns, spread


def _correlation(one: Patterns, other: Patterns) -> NDArray[np.float32]:
    """Of two times P patterns [P, D], pair by pair; [P]."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    found: NDArray[np.float32] = np.einsum("pd,pd->p", a, b)
    return found


def difference_hashes(thumbnails: Thumbnails) -> NDArray[np.uint8]:
    """128 bits: is a cell brighter than its right neighbor, and than the one below?

    The thumbnails are averaged to 9 x 9 cells; brightness and contrast of the whole
    cancel out. uint8 [N, 16].
    """
    gray = thumbnails.mean(3, dtype=np.float32)
    edges = np.linspace(0, THUMBNAIL, HASH_SIDE + 2).round().astype(int)[:-1]
    cells = np.add.reduceat(np.add.reduceat(gray, edges, 1), edges, 2)
    spans = np.diff([*edges, THUMBNAIL])
    cells = cells / np.outer(spans, spans)
    across = cells[:, :-1, :-1] > cells[:, :-1, 1:]
    down = cells[:, :-1, :-1] > cells[:, 1:, :-1]
    return np.packbits(np.stack([across, down], 1).reshape(len(gray), -1), axis=1)


def _candidates(files: Keys, thumbnails: Thumbnails) -> Pairs:
    """Pairs whose hashes agree in a band, or whose files are the same; each once."""
    hashes = difference_hashes(thumbnails)  # uint8 [N, 16]
    wholes = _keys(hashes.view("S16").ravel() if len(hashes) else np.empty(0, "S16"))
    brightness = thumbnails.mean((1, 2, 3))
    everything = np.arange(len(files))
    found = [_pairs(files, everything)]
    for band in hashes.reshape(len(hashes), BANDS, -1).swapaxes(0, 1):
        keys = _keys(band.copy().view(np.uint16).ravel())
        common = np.bincount(keys, minlength=1)[keys] > COMMON
        found.append(_pairs(keys, everything[~common]))
        found.append(
            _pairs(
                wholes,
                everything[common][np.argsort(brightness[common], kind="stable")],
            )
        )
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _keys(values: NDArray[np.generic]) -> Keys:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _pairs(keys: Keys, positions: NDArray[np.int64]) -> Pairs:
    """Pairs of `positions` of the same key: all, or of a common one its neighbors.

    Neighbors are those that follow each other in `positions`.
    """
    ordered = positions[np.argsort(keys[positions], kind="stable")]
    of = keys[ordered]
    common = np.bincount(of, minlength=1)[of] > COMMON
    found = [np.empty((0, 2), np.int64)]
    for apart in range(1, min(COMMON, len(of))):
        meets = of[:-apart] == of[apart:]
        if apart > 1:
            meets &= ~common[apart:]
        found.append(np.stack([ordered[:-apart][meets], ordered[apart:][meets]], 1))
    return np.concatenate(found)
