"""class maps → **explanation**: where in the image the best label was seen.

Zhou et al., arXiv:1512.04150: behind global average pooling, the logit of class k is
the mean over h and w of its class-activation map, plus a bias. The map therefore says
how much each place adds to the logit; places that speak against the label are cut to 0.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier.decode import ImageInfo
from classifier.manifest import Manifest, PreprocessSpec, Task
from classifier.postprocess import Answer
from classifier.preprocess import center_box, pad_placement
from classifier.resample import Box

ClassMaps = npt.NDArray[np.float32]  # [K, h, w]
Grid = tuple[tuple[float, ...], ...]  # h rows of w

DIGITS = 4  # a grid is for looking at


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a label was seen.

    `grid` has h rows of w numbers from 0 to 1, and lies over `region`: left, top, right
    and bottom of what the network saw, as fractions of the upright image. Where the
    image was padded, the region reaches out of it, below 0 and over 1.
    """

    index: int
    label: str
    grid: Grid
    region: Box


def explain(
    answer: Answer, class_maps: ClassMaps, image: ImageInfo, manifest: Manifest
) -> Explanation | None:
    """Explain the best prediction; None where the answer holds none.

    Args:
        answer: of the run that gave the maps.
        class_maps: float32 [K, h, w], finite.
        image: the upright size of what was sent.
        manifest: of the bundle that answered.
    """
    if not answer.predictions:
        return None
    best = answer.predictions[0]
    # a binary graph has one logit, which is that of the second label
    row = 0 if manifest.task is Task.BINARY else best.index
    region = seen_region((image.width, image.height), manifest.preprocess)
    return Explanation(best.index, best.label, heat(class_maps[row]), region)


def heat(class_map: npt.NDArray[np.float32]) -> Grid:
    """A map, float32 [h, w] → what speaks for its class, as a share of the strongest.

    max(0, map) / max(map), rounded; all 0 where nothing speaks for it.
    """
    positive = np.where(class_map > 0, class_map.astype(np.float64), 0)
    strongest = positive.max()
    if strongest > 0:
        positive /= strongest
    return tuple(tuple(row) for row in positive.round(DIGITS).tolist())


def seen_region(size: tuple[int, int], spec: PreprocessSpec) -> Box:
    """What the network sees of an image (width, height), as fractions of it."""
    width, height = size
    match spec.resize:
        case "crop":
            left, top, right, bottom = center_box(size, spec)
        case "pad":
            (width, height), (x, y) = pad_placement(size, spec)
            left, top, right, bottom = -x, -y, spec.width - x, spec.height - y
        case _:
            left, top, right, bottom = 0, 0, width, height
    return left / width, top / height, right / width, bottom / height
