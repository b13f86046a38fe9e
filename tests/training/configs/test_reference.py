"""docs/config.md is what the classes of a config say."""

import re
from pathlib import Path

import pytest

import training.configs
from training.configs.config import SECTIONS, Config
from training.configs.reference import page

KEYS = [
    pytest.param(field, id=f"{section.__name__}.{name}")
    for section in SECTIONS.values()
    for name, field in section.model_fields.items()
]


def test_the_page_is_written_from_the_classes():
    """After a change of a key: python -m training.configs.reference > docs/config.md"""
    docs = Path(__file__).parents[3] / "docs" / "config.md"

    assert docs.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("field", KEYS)
def test_each_key_says_what_it_is_for(field):
    """In a text below it, which the page shows."""
    assert field.description


def test_every_section_is_on_the_page():
    """By the name that it has in a file."""
    sections = set(Config.model_fields) - {"name", "task", "seed"}

    assert sections == set(SECTIONS)


def test_the_map_of_the_configs_says_in_which_module_each_section_is():
    """Whoever looks for one opens the right file."""
    rows = re.findall(r"^(\w*sections) +(.*)", training.configs.__doc__, re.MULTILINE)
    named = {
        section: row for row, text in rows for section in re.findall(r"\w+(?=\])", text)
    }

    where = {name: each.__module__.split(".")[-1] for name, each in SECTIONS.items()}
    assert named == where
