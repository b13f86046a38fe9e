"""Configs are strict: every mistake is named, with what is allowed."""

from itertools import takewhile
from pathlib import Path

import pytest

from tests.training.loop.runs import CONFIG
from training.configs.config import parse_config, read_config
from training.errors import ConfigError
from training.networks import card

CONFIGS = sorted((Path(__file__).parents[3] / "training" / "configs").glob("*.toml"))


@pytest.fixture
def read(tmp_path):
    """Reads the tiny config with a replacement in its text."""

    def read(old: str = "", new: str = "", *changes: str):
        path = tmp_path / "a.toml"
        path.write_text(CONFIG.replace(old, new) if old else CONFIG, encoding="utf-8")
        return read_config(path, changes)

    return read


def test_the_committed_configs_are_valid():
    """And name networks that exist."""
    assert CONFIGS
    for path in CONFIGS:
        assert card(read_config(path).network.name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_begins_with_its_command(path):
    """A config is a runnable claim: the head trains, and names this very file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = list(takewhile(lambda line: line.startswith("#"), lines))

    assert head[0].startswith("# linnaeus train training/configs/")
    assert any(f"training/configs/{path.name}" in line for line in head)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 4", "epoch = 4", r"train\.epoch: unknown; allowed are epochs, minu"),
        (
            "height = 28",
            "hight = 28",
            r"height: Field required.*hight: unknown",
        ),
        ("[augment]", "[augmentation]", "augmentation: unknown; allowed are name, ta"),
        ("epochs = 4", "", "give either epochs or minutes"),
        ("epochs = 4", "epochs = 4\nminutes = 2", "give either epochs or minutes"),
        ("mean = [0.2]", "mean = [0.2, 0.2]", "mean has 2 and std 1 values"),
        (
            "mean = [0.2]",
            'mean = [0.2]\nalike = 0.3\nseries = "a"',
            "by series or by alike, not by both",
        ),
        (
            "mean = [0.2]",
            'mean = [0.2]\nresize = "crop"',
            "data: .*short_side is None; resize 'crop' needs at least 28",
        ),
        (
            "mean = [0.2]",
            'mean = [0.2]\nresize = "crop"\nshort_side = 27',
            "short_side is 27; resize 'crop' needs at least 28",
        ),
        (
            "mean = [0.2]",
            'mean = [0.2]\nresize = "pad"\nshort_side = 28',
            "short_side must be null when resize is 'pad'",
        ),
        ("mean = [0.2]", 'mean = [0.2]\nseries = "("', "no regular expression: miss"),
        ("batch_size = 20", "batch_size = 0", r"train\.batch_size: .*greater than 0"),
        ("cutout = 4", "sizes = [[0.5, 24]]", "must be in order and end at 1.0"),
        ('kind = "adamw"', 'kind = "adam"', "'sgd', 'adamw', 'muon'"),
        ("learning_rate = 0.02", "", "needs one above 0"),
        ("[train]", '[loss]\nkind = "focal"\n[train]', "'cross-entropy' or 'asymm"),
        ("[train]", "[loss]\nclip = 0.1\n[train]", "clip belong to kind 'asymmetric'"),
        ("[train]", "[loss]\ngamma = 2\n[train]", "loss.gamma: unknown; allowed are k"),
        (
            "[train]",
            '[loss]\nkind = "asymmetric"\n[train]',
            "for binary and multilabel tasks; this is multiclass",
        ),
        (
            "[train]",
            '[loss]\npositive_weight = "ratio"\n[train]',
            "this is multiclass: see loss.logit_adjustment",
        ),
        (
            "[train]",
            '[loss]\npositive_weight = "root"\nlogit_adjustment = 1.0\n[train]',
            "do the same; give one of them",
        ),
        (
            "[train]",
            '[loss]\nkind = "asymmetric"\ngamma_negative = 0.5\n[train]',
            "gamma_negative is 0.5; it must be 0 or at least 1",
        ),
        ('name = "tiny"', 'name = "Tiny Net"', "name: String should match pattern"),
        (
            "[train]",
            "[bundle]\ndescription = '" + 2001 * "x" + "'\n[train]",
            r"bundle\.description: String should have at most 2000 characters",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(read, old, new, message):
    """All of them at once, one a line."""
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        read(old, new)


def test_broken_toml_names_the_file(read):
    """And the line, which the parser knows."""
    with pytest.raises(ConfigError, match=r"a\.toml: .*line"):
        read("[data]", "[data")


def test_changes_of_the_command_line_go_over_the_file(read):
    """Minutes replace epochs; words need no quotes."""
    config = read("", "", "train.minutes=5", "schedule.shape=linear", "seed=7")

    assert config.train.minutes == 5
    assert config.train.epochs is None
    assert config.schedule.shape == "linear"
    assert config.seed == 7


@pytest.mark.parametrize("change", ["seed", "seed.deep=1", "train.x=1"])
def test_a_change_that_makes_no_sense_is_refused(read, change):
    """The same rules as in the file."""
    with pytest.raises(ConfigError):
        read("", "", change)


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_a_discriminant_needs_one_label_an_image(task):
    """Said before the minutes that its features take, with what is allowed."""
    given = {
        "name": "tiny",
        "task": task,
        "data": {
            "path": "x",
            "height": 8,
            "width": 8,
            "mean": [0.5] * 3,
            "std": [1] * 3,
        },
        "network": {"name": "efficientnet_lite0"},
        "transfer": {"probe": "discriminant"},
        "train": {"epochs": 1, "batch_size": 8},
    }

    with pytest.raises(ConfigError, match="needs 'logistic'"):
        parse_config(given, "tiny.toml")

    assert parse_config(given | {"task": "multiclass"}, "tiny.toml").transfer
