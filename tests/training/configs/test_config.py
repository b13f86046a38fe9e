"""Configs are strict: every mistake is named, with what is allowed."""

from itertools import takewhile
from pathlib import Path

import pytest

from tests.training.loop.runs import CONFIG
from training.configs.config import Config, parse_config, read_config
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


@pytest.mark.parametrize("name", Config.model_fields)
def test_each_part_of_a_config_is_documented(name):
    """In the list of docs/training.md, as it is written in a file."""
    docs = (Path(__file__).parents[3] / "docs" / "training.md").read_text("utf-8")

    assert any(f"`{form}`" in docs for form in (name, f"[{name}]", f"[[{name}]]"))


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
        ("epochs = 4", "", r"give either train\.epochs or train\.minutes"),
        (
            "epochs = 4",
            "epochs = 4\nminutes = 2",
            r"give either train\.epochs or train\.minutes",
        ),
        ("mean = [0.2]", "mean = [0.2, 0.2]", "mean has 2 and std 1 values"),
        (
            "std = [0.3]",
            "std = [58.4]",
            r"data\.std\.0: .*than or equal to 1; it is 58",
        ),
        ("batch_size = 20", 'batch_size = "20"', 'valid integer; it is "20"'),
        (
            "mean = [0.2]",
            "mean = [0.2]\npositive = [1]",
            r"data\.positive\.0: .*valid string; it is 1",
        ),
        (
            "mean = [0.2]",
            'mean = [0.2]\npositive = ["1"]',
            r"data\.positive is \['1'\]; .* is for binary tasks; this is multiclass",
        ),
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
        ("cutout = 4", "cutout = 28", r"cutout is 28 pixels; .* allow 0 to 27"),
        ("cutout = 4", "crop = 28", r"crop is 28 pixels; .* 28 x 28 allow 0 to 27"),
        ("learning_rate = 0.02", "learning_rate = 0.02\nmomentum = 1.0", "less than 1"),
        (
            "learning_rate = 0.02",
            "learning_rate = 0.02\nmomentum = 0.0",
            "momentum is 0.0; kind 'muon' .* above 0 and below 1",
        ),
        (
            "= 3e-3",
            "= 3e-3\nmomentum = 0.8",
            "momentum is 0.8; kind 'adamw' does not read it, but betas, weight_decay",
        ),
        (
            "learning_rate = 0.02",
            "learning_rate = 0.02\nbetas = [0.8, 0.9]",
            r"betas is \(0.8, 0.9\); kind 'muon' does not read it, but momentum",
        ),
        (
            'kind = "adamw"\nlearning_rate = 3e-3',
            'kind = "frozen"\nuntil = 0.5',
            "until is 0.5; kind 'frozen' does not read it, but nothing besides",
        ),
        ("= 3e-3", "= 3e-3\nbetas = [0.9, 1.0]", r"betas\.1: .*less than 1"),
        (
            "learning_rate =",
            "until = 0.5\nlearning_rate =",
            r"every \[\[optimizer\]\] is frozen after 0\.5 of the training",
        ),
        (
            'name = "lenet5"',
            'name = "lenet5"\noptions = {classes = 2}',
            "options has cla",
        ),
        (
            'name = "tiny"',
            'name = "tiny"\nseed = 4294967296',
            "seed: .*less than 42949",
        ),
        ("batch_size = 20", 'batch_size = "20"', r"batch_size: .*valid integer"),
        ("batch_size = 20", 'batch_size = 20\ncompile = "yes"', "valid boolean"),
        ("batch_size = 20", "batch_size = 20\ncompile = 1", "valid boolean"),
        ("epochs = 4", 'epochs = "4"', "epochs: .*valid number"),
        ('kind = "adamw"', 'kind = "adam"', "'sgd', 'adamw', 'muon'"),
        ("learning_rate = 0.02", "", "needs one above 0"),
        ("[train]", '[loss]\nkind = "focal"\n[train]', "'cross-entropy' or 'asymm"),
        (
            'shape = "cosine"',
            'shape = "constant"\nfinal = 0.1',
            "schedule: .*final is 0.1; shape 'constant' stays at the peak",
        ),
        (
            "warmup = 0.1",
            "start = 0.2",
            "schedule: .*start is 0.2; .* there is none: warmup is 0",
        ),
        (
            "[train]",
            '[bundle]\nsource = "a\\u0007b"\n[train]',
            r"bundle\.source: .*has the control character '\\x07'",
        ),
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
        (
            "[train]",
            "[bundle]\nrecall = 0.98\nrisk = 0.02\n[train]",
            r"\(top level\): bundle\.recall is for binary tasks; this is multiclass",
        ),
        (
            "[train]",
            "[bundle]\nfalse_negative_cost = 2\n[train]",
            r"bundle\.false_negative_cost is for binary tasks; this is multiclass",
        ),
        (
            'task = "multiclass"',
            'task = "binary"\nbundle.risk = 0.02',
            r"bundle\.risk is for multiclass and fine-grained tasks; this is binary",
        ),
        (
            'name = "tiny"',
            'name = "Tiny Net"',
            "name: no bundle can be called 'Tiny Net': its name must begin",
        ),
        (
            "[train]",
            "[bundle]\ndescription = '" + 2001 * "x" + "'\n[train]",
            r"bundle\.description: String should have at most 2000 characters",
        ),
        (
            "[train]",
            "[transfer]\nhead_rate = 0\nbody_rate = 0\n[train]",
            r"transfer\.head_rate: .*greater than 0.*transfer\.body_rate: .*than 0",
        ),
        (
            "[train]",
            "[transfer]\nprobe_decays = []\nprobe_shrinkages = []\n[train]",
            r"transfer\.probe_decays: .*at least 1.*transfer\.probe_shrinkages: ",
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


@pytest.mark.parametrize(
    "line",
    [
        "x = " + "[" * 5000,
        "x = " + "9" * 5000,
        "x = 0x" + "f" * 5000,
        "x." * 5000 + "x = 1",
    ],
    ids=["nested", "long", "hexadecimal", "dotted"],
)
def test_a_value_that_no_parser_takes_names_the_file(read, line):
    """Nor is it a traceback."""
    # from 3.13 on Python writes JSON of such a depth, and pydantic is the one to refuse
    deep = r"a\.toml:\n  \(top level\): Invalid JSON: recursion limit exceeded"
    with pytest.raises(ConfigError, match=rf"cannot read .*a\.toml: |{deep}"):
        read("[data]", f"{line}\n[data]")


@pytest.mark.parametrize("value", ["[" * 5000, "9" * 5000], ids=["nested", "long"])
def test_a_change_that_no_parser_takes_names_its_key(read, value):
    """As a word would in its place."""
    with pytest.raises(
        ConfigError, match=r"train\.epochs: Input should be a valid number"
    ):
        read("", "", f"train.epochs={value}")


def test_a_byte_order_mark_is_passed_over(read):
    """Some editors of Windows begin every text with one."""
    assert read(CONFIG, f"\ufeff{CONFIG}") == read()


def test_changes_of_the_command_line_go_over_the_file(read):
    """Minutes replace epochs; words need no quotes."""
    config = read("", "", "train.minutes=5", "schedule.shape=linear", "seed=7")

    assert config.train.minutes == 5
    assert config.train.epochs is None
    assert config.schedule.shape == "linear"
    assert config.seed == 7


def test_whole_numbers_may_stand_for_fractions(read):
    """People write `minutes = 5`; and TOML has arrays where Python has tuples."""
    config = read("= 3e-3", "= 3e-3\nweight_decay = 1", "train.ema_from=0")

    assert (config.optimizer[1].weight_decay, config.train.ema_from) == (1.0, 0.0)
    assert config.data.mean == (0.2,)


def test_a_change_reaches_into_one_of_several_optimizers(read):
    """By its place in the file, from 0: what `--find-rate` suggests can be tried."""
    config = read("", "", "optimizer.1.learning_rate=0.01")

    assert [row.learning_rate for row in config.optimizer] == [0.02, 0.01]


def test_growing_images_are_squares(read):
    """A side is all that is said of them."""
    sizes = "augment.sizes=[[0.5, 24], [1.0, 28]]"
    assert read("", "", sizes).augment.sizes

    with pytest.raises(ConfigError, match="images of 28 x 32 would be deformed"):
        read("", "", sizes, "data.width=32")


def test_pretrained_weights_want_colors():
    """Said before they are loaded; gray images become gray colors by themselves."""
    given = {
        "name": "tiny",
        "task": "multiclass",
        "data": {"path": "x", "height": 8, "width": 8, "mean": [0.5], "std": [1]},
        "network": {"name": "efficientnet_lite0"},
        "transfer": {},
        "train": {"epochs": 1, "batch_size": 8},
    }
    given["data"]["color"] = "gray"

    with pytest.raises(ConfigError, match=r"data\.color is 'gray'; .* are for 'rgb'"):
        parse_config(given, "tiny.toml")


@pytest.mark.parametrize(
    "change",
    [
        "seed",
        "seed.deep=1",
        "train.x=1",
        "optimizer.2.learning_rate=1",
        "optimizer.learning_rate=1",
    ],
)
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

    given["task"] = "multiclass"
    assert parse_config(given, "tiny.toml").transfer


TRANSFER = """
name = "pets"
task = "multiclass"

[data]
path = "pets"
height = 224
width = 224

[network]
name = "efficientnet_lite0"

[transfer]
finetune = false
"""


def read_transfer(tmp_path: Path, old: str = "", new: str = "") -> Config:
    """The shortest config of a transfer, with a replacement in its text."""
    path = tmp_path / "pets.toml"
    path.write_text(TRANSFER.replace(old, new) if old else TRANSFER)
    return read_config(path)


def test_pretrained_weights_bring_their_normalization(tmp_path):
    """Nobody has to look up what a network was trained with."""
    data = read_transfer(tmp_path).data

    assert (data.mean, data.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


def test_a_normalization_that_is_given_is_kept(tmp_path):
    """Both or none: half of one and half of another would be neither."""
    half, whole = "mean = [0.5, 0.5, 0.5]", "mean = [0.5, 0.5, 0.5]\nstd = [1, 1, 1]"

    data = read_transfer(tmp_path, "[network]", f"{whole}\n[network]").data
    assert (data.mean, data.std) == ((0.5,) * 3, (1.0,) * 3)
    with pytest.raises(ConfigError, match=r"data\.std: Field required"):
        read_transfer(tmp_path, "[network]", f"{half}\n[network]")


def test_a_network_without_weights_needs_a_normalization(read):
    """It would change every prediction, so it is never guessed."""
    with pytest.raises(ConfigError, match=r"data\.mean: Field required"):
        read("mean = [0.2]", "")


def test_a_discriminant_has_no_loss_to_adjust(tmp_path):
    """It would be fitted as if nothing had been asked for."""
    wish = "[loss]\nlogit_adjustment = 1.0\n[transfer]"
    assert read_transfer(tmp_path, "[transfer]", wish).loss.logit_adjustment

    with pytest.raises(ConfigError, match=r"logit_adjustment is .*take 'logistic'"):
        read_transfer(tmp_path, "[transfer]", f'{wish}\nprobe = "discriminant"')


def test_a_probe_alone_has_no_length(tmp_path):
    """Epochs are those of the fine-tuning, without which there are none."""
    assert read_transfer(tmp_path).train.epochs is None

    with pytest.raises(ConfigError, match=r"give either train\.epochs or train\.minu"):
        read_transfer(tmp_path, "finetune = false", "finetune = true")


@pytest.mark.parametrize(
    ("train", "why"),
    [("train = 5", "train is not a section"), ("[[train]]", "train is a list; say")],
)
def test_a_length_for_a_train_that_is_no_section_is_refused(
    tmp_path: Path, train: str, why: str
):
    """As any other change below it would be."""
    path = tmp_path / "a.toml"
    path.write_text(f"{train}\n")

    with pytest.raises(ConfigError, match=f"train.minutes=3.*{why}"):
        read_config(path, ("train.minutes=3",))
