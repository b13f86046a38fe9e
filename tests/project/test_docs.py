"""Documents as promises: what they name exists, what they show runs."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from classifier import Classifier
from classifier.bundle import list_versions
from training.configs.config import read_config

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page
    for folder in (".", "docs", "deploy", "models", "bench", "training")
    for page in (ROOT / folder).glob("*.md")
)


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request) -> Path:
    """Every page that people read."""
    return request.param


def commands(text: str) -> list[str]:
    """Every command that a page shows in a block or between backquotes."""
    blocks = [body for language, body in FENCE.findall(text) if language in ("", "sh")]
    lines = [
        line.partition("#")[0].strip() for block in blocks for line in block.split("\n")
    ]
    return lines + re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def test_every_link_leads_somewhere(page):
    """A page that was moved takes its links with it."""
    text = FENCE.sub("", page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [t for t in targets if not re.match(r"[a-z]+:", t)]

    dead = [t for t in local if not target_exists(page, t)]

    assert dead == []


def target_exists(page: Path, target: str) -> bool:
    """Whether file and heading of a relative link exist."""
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists():
        return False
    if not anchor or file.suffix != ".md":
        return True
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return anchor in {slug(heading) for heading in headings}


def slug(heading: str) -> str:
    """The anchor that a heading gets on the usual hosts."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_every_make_target_exists(page):
    """`make serve` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile(), re.MULTILINE))

    named = {
        word
        for command in commands(page.read_text())
        if command.startswith("make ")
        for word in command.split()[1:]
        if re.fullmatch(r"[a-z][a-z0-9-]*", word)
    }

    assert named - targets == set()


def makefile() -> str:
    """The Makefile's text."""
    return (ROOT / "Makefile").read_text()


def test_make_help_lists_every_target():
    """A verb that help does not list is known to its author only."""
    [phony] = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", makefile(), re.MULTILINE)
    listed = re.findall(r"^([a-z0-9-]+):.*## ", makefile(), re.MULTILINE)

    assert sorted(phony.replace("\\\n", " ").split()) == sorted(listed)


LINNAEUS = re.compile(r"(?:\S*/)?linnaeus ([a-z]+)(.*)")


def test_the_documents_show_commands_with_options():
    """What the next test looks at is there: a pattern of nothing finds no fault."""
    found = [
        match
        for page in PAGES
        for command in commands(page.read_text())
        if (match := LINNAEUS.match(command)) and "--" in match[2]
    ]

    assert len(found) > 1


def test_every_linnaeus_command_and_option_exists(page):
    """Whoever copies a line from a document gets no `No such option`."""
    for command in commands(page.read_text()):
        found = LINNAEUS.match(command)
        if found is None:
            continue
        name, rest = found.groups()
        assert name in cli.COMMANDS, command
        options = set(re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", rest)) - {"--help"}
        if options:
            shown = help_of(name, *subcommand(name, rest))
            assert [o for o in options if o not in shown] == [], command


def subcommand(name: str, rest: str) -> list[str]:
    """The second word, where the command is a group of commands."""
    words = rest.split()
    return words[:1] if name == "data" and words and words[0].isalpha() else []


def help_of(*words: str) -> str:
    """What `linnaeus … --help` prints."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name):
    """`linnaeus NAME --help` imports what the command needs, and shows its usage."""
    assert f"{name} [OPTIONS]" in help_of(name)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_no_word_of_a_help_is_taken_for_markup(name):
    """`[bundle]` in a text is the section of a config, and no color of the terminal."""
    for words, command in with_subcommands(name):
        texts = [command.help, *(getattr(p, "help", None) for p in command.params)]
        written = " ".join(text for text in texts if text).replace("\\[", "[")

        shown = help_of(*words)
        for bracketed in re.findall(r"\[[^\]\s]+\]", written):
            assert bracketed in shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_no_command_offers_to_change_the_shell(name):
    """Completion is off for `linnaeus`, so it is for what is below it."""
    assert "--install-completion" not in help_of(name)


def with_subcommands(name: str) -> list[tuple[list[str], Any]]:
    """The command and, of a group, each that is below it, by the words that call it."""
    lazy = cli.LazyCommand(name, cli.COMMANDS[name])
    command = lazy.make_context(name, [], resilient_parsing=True).command
    below = getattr(command, "commands", {})
    return [([name], command), *(([name, sub], below[sub]) for sub in below)]


def test_every_python_module_that_a_page_runs_exists(page):
    """`python -m bench.load` in a document is a module of the checkout."""
    modules = {
        found.group(1)
        for command in commands(page.read_text())
        if (
            found := re.search(
                r"python3? -m ((?:bench|deploy|training)[\w.]*)", command
            )
        )
    }

    assert [module for module in modules if find_spec(module) is None] == []


def test_a_config_that_a_page_shows_whole_is_one(page, tmp_path):
    """Who copies it trains with it."""
    shown = FENCE.findall(page.read_text())
    whole = [body for _, body in shown if body.startswith("name = ")]
    for number, body in enumerate(whole):
        config = tmp_path / f"{number}.toml"
        config.write_text(body)

        assert read_config(config).name in body


def test_the_page_on_bundles_names_every_bundle_of_the_checkout():
    """Whoever looks for one to try reads there what it shows."""
    models = ROOT / "models"
    [named] = re.findall(
        r"^The checkout contains .*?\n\n",
        (models / "README.md").read_text(),
        re.M | re.S,
    )
    there = {folder.name for folder in models.iterdir() if list_versions(folder)}

    assert set(re.findall(r"`([^`]+)`", named)) == there


def test_the_readme_shows_the_test_command_that_runs_in_continuous_integration():
    """One command for both, so they cannot disagree."""
    script = (ROOT / ".ci/run").read_text()

    assert "\nmake test " in (ROOT / "README.md").read_text()
    assert script.splitlines()[-1] == "exec make test"


def test_the_readme_leads_to_the_command_for_pytorch_without_cuda():
    """Whoever has no GPU finds under that heading what to type, and from whom."""
    [target] = re.findall(
        r"\[take its CPU build\]\((\S+)\)", (ROOT / "README.md").read_text()
    )
    page, _, anchor = target.partition("#")
    sections = re.split(r"^#+ ", (ROOT / page).read_text(), flags=re.MULTILINE)
    [section] = [s for s in sections if slug(s.partition("\n")[0]) == anchor]

    typed = [line for _, body in FENCE.findall(section) for line in body.split("\n")]
    assert any(line.startswith("export PIP_EXTRA_INDEX_URL=") for line in typed)
    assert any(line.startswith("make setup") for line in typed)
    assert "(https://pytorch.org/get-started/" in section


def blocks(page: str, language: str) -> list[str]:
    """The page's blocks of that language."""
    found = FENCE.findall((ROOT / page).read_text())
    return [body for of, body in found if of == language]


def test_the_readme_shows_the_answer_that_is_given():
    """To the image of the checkout that its first request sends."""
    [block] = blocks("README.md", "json")
    shown = json.loads(block)
    [request] = re.findall(
        r"curl --data-binary @(\S+) .*", "".join(blocks("README.md", "sh"))
    )

    classifier = Classifier.load(ROOT / "models" / shown["model"]["name"])
    answer = classifier.classify(ROOT / request, top_k=len(shown["predictions"]))

    assert [p["label"] for p in shown["predictions"]] == [
        p.label for p in answer.predictions
    ]
    scores = [p.score for p in answer.predictions]
    # int8 gives other last digits on other processors
    shown_scores = [p["score"] for p in shown["predictions"]]
    assert shown_scores == pytest.approx(scores, abs=0.01)
    assert shown["image"] == asdict(answer.image)


def test_the_example_of_the_library_runs(tmp_path, sample_photos, imagenet_bundle):
    """What a reader copies first must work as it stands."""
    [code] = blocks("docs/library.md", "python")
    [photo] = [photo.path for photo in sample_photos if photo.name == "monarch"]
    (tmp_path / "models").symlink_to(imagenet_bundle.parent)
    shutil.copy(photo, tmp_path / "photo.jpg")

    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "monarch" in result.stdout.splitlines()[0]
