"""photos → **scenes**: which of them belong together, and stay on one side of a cut.

Photos seldom come one by one: ten are taken of a shelf, a hundred of a patient. Where
a cut goes through such a series, validation holds the neighbors of what was learned,
and its figures flatter. A scene is a set of photos that a cut, or a fold, never parts.
Axes: N images, D features.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Labels
from training.errors import DataError

Scenes = NDArray[np.int64]  # [N], the number of each image's scene

# All pairs of a label are compared: 5,000 images are 200 MB of distances.
MOST_OF_A_LABEL = 5000


def scenes_by_name(names: Sequence[str], pattern: str) -> Scenes:
    r"""Images whose names match in the same words are of one scene.

    `IMG_(\d+)_` brings together what has the same number; without a group the whole
    match counts.

    Raises:
        DataError: a name that does not match, for it would be parted from its own.
    """
    keys = []
    for name in names:
        found = re.search(pattern, name)
        if found is None:
            raise DataError(f"data.series is {pattern!r}, which {name} does not match")
        keys.append(found.groups() or (found.group(),))
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.int64)


def scenes_by_likeness(
    features: NDArray[np.float32], labels: Labels, *, likeness: float
) -> Scenes:
    """Images of the same labels that look alike are of one scene.

    Likeness is the cosine of standardized features [N, D]. Scenes grow together as long
    as the mean likeness of their pairs reaches `likeness` (average linkage), so that a
    chain of neighbors does not become one scene.

    Raises:
        DataError: too many images of one label to compare them all.
    """
    standard = (features - features.mean(0)) / features.std(0).clip(min=1e-6)
    _, kinds = np.unique(labels, axis=0, return_inverse=True)
    scenes = np.zeros(len(labels), np.int64)
    begun = 0
    for kind in range(int(kinds.max()) + 1):
        members = np.flatnonzero(kinds == kind)
        if len(members) > MOST_OF_A_LABEL:
            raise DataError(
                f"data.alike compares all images of a label, at most {MOST_OF_A_LABEL};"
                f" one has {len(members)}: tell scenes by data.series"
            )
        found = _grown_together(standard[members], likeness)
        scenes[members] = begun + found
        begun += int(found.max()) + 1
    return scenes


def _grown_together(features: NDArray[np.float32], likeness: float) -> Scenes:
    if len(features) == 1:
        return np.zeros(1, np.int64)
    # slow to load, and absent where only the CIFAR-10 table is trained
    from sklearn.cluster import (  # type: ignore[import-untyped]  # noqa: PLC0415
        AgglomerativeClustering,
    )

    clusters = AgglomerativeClustering(
        None, metric="cosine", linkage="average", distance_threshold=1 - likeness
    )
    found: Scenes = clusters.fit_predict(features.astype(np.float64))
    return found
