"""`linnaeus import` as it is typed."""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from classifier import Classifier
from classifier.bundle import load_bundle
from tests.training.foreign.strangers import photo, stranger
from training.commands.import_ import find_images, slug
from training.foreign.answers import PARSERS

ROOT = Path(__file__).parents[3]
FACTS = [
    *("--task", "multiclass", "--preset", "torchvision"),
    *("--resize", "squash", "--interpolation", "bilinear"),
]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A stranger's file, its labels and a photo."""
    (tmp_path / "My Net.onnx").write_bytes(stranger().SerializeToString())
    (tmp_path / "labels.csv").write_text("id,name\na,Apple\nb,Pear\nc,Plum\nd,Fig\n")
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo()).save(tmp_path / "photos" / "one.png")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path


def linnaeus(folder: Path, *arguments: str):
    """Run the command in this process."""
    file = str(folder / "My Net.onnx")
    models = ["--models", str(folder / "models")]
    return CliRunner().invoke(cli.app, ["import", file, *models, *arguments])


def test_a_described_file_becomes_a_bundle(folder):
    """Name from the file, labels from the CSV, golden from the photos."""
    labels = ["--labels", str(folder / "labels.csv")]

    done = linnaeus(folder, *FACTS, *labels, "--samples", str(folder / "photos"))

    assert done.exit_code == 0, done.output
    assert done.stdout == f"wrote {folder / 'models' / 'my-net' / '1'}\n"
    classifier = Classifier.load(folder / "models" / "my-net", device="cpu")
    assert classifier.manifest.description == "Imported from My Net.onnx."
    assert [label.name for label in classifier.manifest.labels] == [
        "Apple",
        "Pear",
        "Plum",
        "Fig",
    ]
    assert (
        "agrees with the original"
        in (folder / "models" / "my-net" / "1" / "card.md").read_text()
    )


@pytest.mark.parametrize("option", ["--description", "--license", "--source"])
def test_what_the_card_says_cannot_steer_a_terminal(folder, option):
    """Named by the field, and nothing is written."""
    options = [*FACTS, "--labels", str(folder / "labels.csv"), "--synthetic"]

    done = linnaeus(folder, *options, option, "\x1b[31mred")

    assert re.search(f"{option[2:]}: .*control character '.x1b'", str(done.exception))
    assert type(done.exception).__name__ == "TrainingError"
    assert not (folder / "models").exists()


@pytest.mark.parametrize("option", ["models", "data"])
@pytest.mark.parametrize("name", sorted(set(cli.COMMANDS) - {"serve"}))
def test_each_command_takes_a_folder_from_the_environment(name, option):
    """As `serve` does by its settings: what one writes is what the next one finds."""
    lazy = cli.LazyCommand(name, cli.COMMANDS[name])
    command = lazy.make_context(name, [], resilient_parsing=True).command
    variables = [p.envvar for p in command.params if f"--{option}" in p.opts]

    assert set(variables) <= {f"LINNAEUS_{option.upper()}"}


def test_a_bundle_is_written_where_the_environment_says(folder, monkeypatch):
    """And the command of its manifest names the folder."""
    monkeypatch.setenv("LINNAEUS_MODELS", str(folder / "elsewhere"))
    options = [*FACTS, "--labels", str(folder / "labels.csv"), "--synthetic"]
    options += ["--description", "Which fruit.", "--license", ""]

    done = CliRunner().invoke(
        cli.app, ["import", str(folder / "My Net.onnx"), *options]
    )

    assert done.exit_code == 0, done.output
    bundle = load_bundle(folder / "elsewhere" / "my-net")
    origin = bundle.manifest.provenance
    assert bundle.manifest.description == "Which fruit."
    assert (origin.license, origin.source) == ("not stated", "not stated")
    end = ["--synthetic", "--description", "Which fruit.", "--models"]
    assert shlex.split(origin.command)[-5:] == [*end, str(folder / "elsewhere")]


def test_the_command_in_the_manifest_makes_the_bundle_again(folder):
    """With every option that was given, and none that was not."""
    labels = ["--labels", str(folder / "labels.csv")]
    photos = ["--samples", str(folder / "photos" / "one.png")]
    linnaeus(folder, *FACTS, *labels, *photos, *photos, "--license", "CC BY 4.0")
    first = load_bundle(folder / "models" / "my-net").manifest

    program, *arguments = shlex.split(first.provenance.command)
    again = CliRunner().invoke(cli.app, arguments)

    assert program == "linnaeus"
    assert again.exit_code == 0, again.output
    second = load_bundle(folder / "models" / "my-net").manifest
    assert second.version == 2
    assert second.provenance.command == first.provenance.command
    assert second.preprocess == first.preprocess
    assert second.graphs == first.graphs
    assert first.provenance.license == "CC BY 4.0"
    assert not {"--description", "--source"} & set(arguments)


def test_a_second_import_is_the_next_version(folder):
    """A version is never overwritten."""
    given = [*FACTS, "--labels", str(folder / "labels.csv"), "--synthetic"]

    linnaeus(folder, *given)
    linnaeus(folder, *given)

    versions = (folder / "models" / "my-net").iterdir()
    assert sorted(version.name for version in versions) == ["1", "2"]


def test_without_a_terminal_the_open_questions_are_an_error(folder):
    """A script must not hang in a prompt; it is told all that is missing."""
    done = linnaeus(folder)

    assert done.exit_code == 1
    asked = set(re.findall(r"--[a-z-]+", str(done.exception)))
    assert {"--labels", "--task", "--scale", "--color", "--resize"} <= asked
    assert not (folder / "models").exists()


def test_no_photo_is_an_error_that_names_the_way_out(folder):
    """Proof on synthetic images is possible, but has to be wanted."""
    done = linnaeus(folder, *FACTS, "--labels", str(folder / "labels.csv"))

    assert done.exit_code == 1
    assert "--synthetic" in str(done.exception)


def test_photos_and_made_up_images_exclude_one_another(folder):
    """The photos would go unread, and the card would say that there were none."""
    labels = ["--labels", str(folder / "labels.csv"), "--synthetic"]

    done = linnaeus(folder, *FACTS, *labels, "--samples", str(folder / "photos"))

    assert done.exit_code == 1
    assert "--samples and --synthetic were both given" in str(done.exception)


def test_a_name_that_no_bundle_may_have_is_refused_first(folder):
    """In words, and before anything is asked."""
    done = linnaeus(folder, "--name", "My Net")

    assert done.exit_code == 1
    assert "cannot be called 'My Net': its name must begin" in str(done.exception)


def test_a_folder_in_place_of_the_file_is_named(folder, monkeypatch):
    """Also the one that has no name."""
    monkeypatch.chdir(folder)

    done = CliRunner().invoke(cli.app, ["import", "."])

    assert str(done.exception).startswith(".: cannot read .: ")


def test_a_place_that_takes_no_bundle_is_refused_before_anything_is_asked(folder):
    """Here a file is in the place of the models."""
    (folder / "models").write_text("")

    done = linnaeus(folder)

    assert done.exit_code == 1
    place = folder / "models" / "my-net"
    assert str(done.exception).startswith(f"My Net.onnx: cannot write {place}: ")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("My Net", "my-net"),
        ("ResNet50_v2.1", "resnet50_v2.1"),
        ("é", "imported"),
        ("a" * 65, "a" * 64),
    ],
)
def test_a_file_name_becomes_a_bundle_name(stem, name):
    """Blanks and capitals do not belong into an address."""
    assert slug(stem) == name


def test_folders_give_their_images_only(folder):
    """Notes beside the photos are not photos."""
    assert [p.name for p in find_images([folder / "photos"])] == ["one.png"]


def test_importing_needs_no_torch(folder):
    """The extra `import` is onnx alone."""
    code = (
        "import sys; sys.modules['torch'] = None; import cli; "
        f"cli.app(['import', {str(folder / 'My Net.onnx')!r}, '--synthetic', "
        f"'--models', {str(folder / 'models')!r}, "
        f"'--labels', {str(folder / 'labels.csv')!r}, *{FACTS!r}])"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 0, done.stderr
    assert (folder / "models" / "my-net" / "1" / "manifest.json").is_file()


def test_a_real_export_of_pytorch_is_imported(folder):
    """With the exporter's defaults: a fixed batch, and weights in a second file."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    from training.graphs.export import quiet_exporter  # noqa: PLC0415  needs torch

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    ).eval()
    with quiet_exporter():
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 8, 8),),
            folder / "My Net.onnx",
            dynamo=True,
            external_data=True,
            verbose=False,
        )
    assert (folder / "My Net.onnx.data").is_file()
    labels = ["--labels", str(folder / "labels.csv")]

    done = linnaeus(folder, *FACTS, *labels, "--samples", str(folder / "photos"))

    assert done.exit_code == 0, done.output
    classifier = Classifier.load(folder / "models" / "my-net", device="cpu")
    pixels = photo(side=8)[None].copy()  # torch wants to own it
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = network(x).numpy()
    assert classifier.session.run(pixels) == pytest.approx(expected, abs=1e-4)


OPTIONS = [f"--{name.replace('_', '-')}" for name in (*PARSERS, "preset")]


@pytest.mark.parametrize("option", OPTIONS)
def test_each_fact_is_an_option_and_documented(option):
    """What can be asked can be said, and is explained."""
    page = (ROOT / "docs/import.md").read_text(encoding="utf-8")
    help_page = CliRunner().invoke(cli.app, ["import", "--help"], terminal_width=200)

    assert f"`{option}`" in page
    assert option in help_page.output


def at_a_terminal(
    folder: Path, typed: str, *, ends: str = "", interrupt_at: bytes = b""
) -> tuple[int, str]:
    """The status of the import, and what the terminal shows of it.

    `ends` redirects a stream as a shell does; Ctrl-C comes when a text is there. Python
    misses one that comes just before it waits for a line; then it is pressed again.
    """
    terminal, side = pty.openpty()
    places = (folder / "My Net.onnx", "--synthetic", "--models", folder / "models")
    command = subprocess.Popen(
        (
            *("sh", "-c", f'exec "$@" {ends}', "sh"),
            *(sys.executable, "-m", "cli", "import", *places),
        ),
        stdin=side,
        stdout=side,
        stderr=side,
        cwd=ROOT,
    )
    os.close(side)
    os.write(terminal, typed.encode())
    shown, patience_s = b"", None
    with suppress(OSError):  # the terminal's end: its other side is closed
        while True:
            if not select.select([terminal], [], [], patience_s)[0]:
                command.send_signal(signal.SIGINT)
                continue
            shown += os.read(terminal, 4096)
            if interrupt_at and interrupt_at in shown and patience_s is None:
                command.send_signal(signal.SIGINT)
                patience_s = 10
    os.close(terminal)
    return command.wait(), shown.decode()


def test_on_a_terminal_the_questions_are_asked(folder):
    """Each open fact, with its reason and choices, until the answer can be read."""
    answers = ["purple", "rgb", "1", "0.5", "0.25", "crop", "bilinear", "multiclass"]
    answers += [str(folder / "labels.csv"), "8"]

    status, shown = at_a_terminal(folder, "".join(f"{each}\n" for each in answers))

    assert status == 0, shown
    assert "what white is before mean and std" in shown
    assert "rgb|bgr: " in shown
    assert "color is 'purple'; it must be one of: rgb, bgr, gray" in shown
    assert "--short-side: " in shown  # asked for once there is a crop
    manifest = load_bundle(folder / "models" / "my-net").manifest
    assert manifest.task == "multiclass"
    command = manifest.provenance.command
    assert "--synthetic" in command
    assert "--mean 0.5 --std 0.25" in command  # as answered
    assert "--short-side 8" in command
    assert "purple" not in command


@pytest.mark.parametrize("ends", ["</dev/null", "<&-", ">/dev/null"])
def test_nobody_is_asked_who_could_not_answer_or_not_see_the_question(folder, ends):
    """The terminal is at one end only; an input that is closed is none."""
    status, shown = at_a_terminal(folder, "\x04", ends=ends)  # Ctrl-D, if one asked

    assert status == 1
    assert "still needed:" in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("signals_of_a_terminal")
@pytest.mark.parametrize(
    ("typed", "interrupt_at", "status"), [("", b"rgb|bgr", 130), ("\x04", b"", 1)]
)
def test_a_question_can_be_left(folder, typed, interrupt_at, status):
    """By Ctrl-C with the status that it has in each command; or by Ctrl-D."""
    ended, shown = at_a_terminal(folder, typed, interrupt_at=interrupt_at)

    assert ended == status
    assert "rgb|bgr" in shown
    assert "Traceback" not in shown
    assert not (folder / "models").exists()
