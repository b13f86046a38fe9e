"""text → **Markdown** that shows it as it is, whatever it holds."""

import re

# What begins a link, HTML, an entity, a cell or emphasis. An underscore inside a word
# does not, and would only be hard to read.
ACTIVE = re.compile(r"[\\`*\[\]<>|&~]|(?<![^\W_])_|_(?![^\W_])")


def plain(text: str) -> str:
    """As text on one line, also in the cell of a table."""
    return ACTIVE.sub(r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """As code, for lists: it is seen where a name with commas ends. Not for cells."""
    line = " ".join(text.split())
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    room = " " if longest else ""
    return f"{fence}{room}{line}{room}{fence}"
