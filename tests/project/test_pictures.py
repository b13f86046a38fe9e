"""Pictures of other people's data sets that the repository carries."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CARDS = sorted((ROOT / "models").glob("*/*/card.md"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parts[-3])
def test_a_card_shows_only_pictures_that_are_there(card):
    """A sheet that was taken out of a bundle leaves no dead link."""
    shown = re.findall(r"\]\(([^)\s]+)\)", card.read_text())
    local = [target for target in shown if "://" not in target]

    assert [name for name in local if not (card.parent / name).is_file()] == []


def test_the_notice_names_every_sheet_of_test_images():
    """Who passes the repository on must know whose pictures are in it."""
    notice = (ROOT / "NOTICE").read_text()
    sheets = [path.relative_to(ROOT) for path in ROOT.glob("models/*/*/mistakes.jpg")]

    assert [str(sheet) for sheet in sheets if str(sheet) not in notice] == []


def test_the_notice_names_every_bundle_whose_golden_images_are_photos():
    """They cannot be left out: a bundle is proven with them at each load."""
    notice = (ROOT / "NOTICE").read_text()
    bundles = [card.parent.relative_to(ROOT) for card in CARDS]

    assert [str(b) for b in bundles if f"{b}/golden.npz" not in notice] == []
