"""Markdown of a card → **HTML** for inside a page, whatever somebody wrote into it."""

from markdown_it import MarkdownIt
from markupsafe import Markup

# The page has headings of its own above those of the card.
DEEPER = {"h1": "h3", "h2": "h4", "h3": "h5", "h4": "h6", "h5": "h6"}


def typeset(text: str) -> Markup:
    """Set CommonMark with tables as HTML.

    HTML inside the text is shown as it is written, and pictures are left out: the page
    has those of the folder already, and asks no network for others.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    for token in tokens:
        token.tag = DEEPER.get(token.tag, token.tag)
        if token.children:
            token.children = [each for each in token.children if each.type != "image"]
    # Escaped by the renderer, so the template need not do it again.
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704
