"""text → **text that can be shown**: bounded, and without control characters.

They would steer the terminal that shows a label, and part the line that it stands in.
"""

import re
from typing import Annotated
from unicodedata import category

from pydantic import AfterValidator, Field

MAX_LABEL_CHARACTERS = 200
SURROGATE = "Cs"  # Unicode's category of what Python makes of such bytes

# Unicode's category Cc.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Where a text may have several lines.
CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def has_control(text: str) -> bool:
    """Whether there is a control character, such as a tab or the end of a line."""
    return CONTROL.search(text) is not None


def of_one_line(text: str) -> str:
    """The text. Raises ValueError where it has a control character."""
    if has_control(text):
        raise ValueError(
            f"{text!r} has a control character, such as a tab or the end of a line"
        )
    return text


def of_lines(text: str) -> str:
    """The text, of one or several lines. Raises ValueError as `of_one_line`."""
    found = CONTROL_IN_LINES.search(text)
    if found is not None:
        raise ValueError(
            f"it has the control character {found[0]!r}; of these only tabs and the "
            "ends of lines are allowed"
        )
    return text


LabelText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LABEL_CHARACTERS),
    AfterValidator(of_one_line),
]
Prose = Annotated[str, AfterValidator(of_lines)]
Description = Annotated[str, Field(max_length=2000), AfterValidator(of_lines)]


def as_utf8(text: str) -> str:
    """The same as a file in UTF-8 can hold it.

    Python has bytes of file names that are no letters as surrogates, and no encoding
    has those.
    """
    return text.encode(errors="replace").decode()


def visible(text: str, *, kept: str = SURROGATE) -> str:
    """The text, with escapes for what would steer a terminal or turn its writing.

    `kept` is a category of Unicode that stays: by itself that of bytes of a file's name
    which is no valid Unicode.
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or category(letter) == kept
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
