"""The bounds that docs/http.md names are those that hold."""

import pytest

from classifier import decode
from classifier.bombs import avif, bmp, budget, gif, jpeg, png, tiff
from tests.conftest import REPOSITORY

BOUNDS = {
    "JPEG": [
        jpeg.MAX_SEGMENTS,
        jpeg.MAX_FILL_BYTES,
        jpeg.MAX_PARSED_BYTES,
        jpeg.MAX_SCANS,
        jpeg.MAX_WALKED_PIXELS,
    ],
    "PNG": [png.MAX_CHUNKS, png.MAX_PACKED],
    "GIF": [gif.MAX_PIECES],
    "TIFF": [
        tiff.MAX_ENTRIES,
        f"{tiff.MAX_TILED} times that",
        tiff.MAX_WALKED_PIXELS,
    ],
    "BMP with run lengths": [bmp.MAX_RUN_PIXELS],
    "AVIF": [budget.MAX_PIECES, {3: "three"}[avif.MAX_SUM]],
    "EXIF of more": [decode.MAX_EXIF_BYTES],
    "EXIF of TIFF and AVIF": [tiff.MAX_EXIF_NUMBERS],
}
PAGE = (REPOSITORY / "docs" / "http.md").read_text()
SECTION = PAGE.partition("### Files that are refused")[2].partition("\n## ")[0]


@pytest.mark.parametrize("kind", BOUNDS)
def test_every_bound_is_documented(kind):
    """In the line of its format, written as people write it."""
    [line] = [
        line for line in SECTION.splitlines() if line.startswith((f"| {kind} |", kind))
    ]

    for bound in BOUNDS[kind]:
        assert (bound if isinstance(bound, str) else f"{bound:,}") in line
