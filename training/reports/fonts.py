"""labels → **fonts** that have their letters: DejaVu Sans, and what is installed here.

DejaVu Sans comes with matplotlib and has the letters of Europe, Arabic and Hebrew;
those of East Asia need a font of the machine.
"""

import logging
from collections.abc import Iterable
from functools import cache

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Arial Unicode MS",
    "Noto Sans",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "FreeSans",
    "Unifont",
)
NAMED = 20  # letters in one message

LOGGER = logging.getLogger(__name__)


@cache
def families() -> tuple[str, ...]:
    """DejaVu Sans, then the fallbacks that are installed, in the order of their use."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return "DejaVu Sans", *(name for name in FALLBACKS if name in installed)


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every letter of `text`; else DejaVu Sans. In pixels."""
    fit = (name for name in families() if _letters_of(text) <= _charmap(name))
    return ImageFont.truetype(_file(next(fit, families()[0])), size)


def warn_of_missing(texts: Iterable[str]) -> None:
    """One line that names the letters that no font here has, if there are any."""
    missing = _letters_of("".join(texts))
    for family in families():
        if not missing:  # most labels need DejaVu Sans alone: no other file is opened
            return
        missing -= _charmap(family)
    if missing:
        LOGGER.warning(
            "no font here has %s: boxes stand for them in the pictures; install one "
            "that has, such as Noto Sans CJK",
            " ".join(sorted(missing)[:NAMED]),
        )


def _letters_of(text: str) -> frozenset[str]:
    return frozenset("".join(text.split()))


@cache
def _charmap(family: str) -> frozenset[str]:
    return frozenset(map(chr, FT2Font(_file(family)).get_charmap()))


def _file(family: str) -> str:
    return str(font_manager.findfont(family))
