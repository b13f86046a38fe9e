"""`linnaeus classify`: files, folders and globs in; a table, CSV or JSONL out."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from classifier import Classifier
from classifier.classifier import Classification
from classifier.decode import ImageInfo
from classifier.device import cuda_problem
from classifier.errors import (
    BundleError,
    DeviceUnavailableError,
    EmptyImageError,
    ImageError,
    RequestError,
)
from classifier.manifest import Task
from classifier.names import image_files
from classifier.postprocess import GroupScore, Prediction
from service.commands.classify import write, write_csv, write_jsonl, write_table
from tests.classifier.processes import ROOT, python
from tests.powerless import powerless
from tests.synthetic import make_bundle, png


def lines(result) -> list[dict]:
    """The objects of a JSONL output."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_folder_is_searched_and_sorted(linnaeus, photos):
    """Images by their suffix, in all folders below."""
    result = linnaeus("classify", photos, "--model", "colors", "--format", "jsonl")

    assert result.exit_code == 0, result.output
    assert [line["path"] for line in lines(result)] == [
        str(photos / "a.PNG"),
        str(photos / "b.png"),
        str(photos / "more" / "c.png"),
    ]
    found = [line["predictions"][0]["label"] for line in lines(result)]
    assert found == ["red", "blue", "green"]


def test_what_archivers_leave_in_a_folder_is_no_image(linnaeus, tmp_path):
    """Unless it is named itself."""
    photos = tmp_path / ".photos"
    for name in ("a.png", "._a.png", "__MACOSX/a.png", ".trash/b.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(png((240, 10, 10)))
    named = (photos, photos / "._a.png", photos / ".trash")

    result = linnaeus("classify", *named, "--model", "colors", "--format", "jsonl")

    found = [photos / "a.png", photos / "._a.png", photos / ".trash" / "b.png"]
    assert [line["path"] for line in lines(result)] == list(map(str, found))


def test_a_folder_that_is_called_like_an_image_is_none(linnaeus, photos):
    """An album of an application; what is in it counts."""
    (photos / "trip.jpg").mkdir()
    (photos / "trip.jpg" / "d.png").write_bytes(png((240, 10, 10)))

    result = linnaeus("classify", photos, "--model", "colors", "--format", "jsonl")

    assert result.exit_code == 0, result.output
    names = [Path(line["path"]).name for line in lines(result)]
    assert names == ["a.PNG", "b.png", "c.png", "d.png"]


def test_a_folder_that_may_not_be_listed_is_named(volume):
    """Its images would be left out, and nobody would know."""
    (volume / "ours").mkdir()
    (volume / "theirs").mkdir(mode=0)

    with powerless(), pytest.raises(ImageError, match=f"cannot list {volume}/theirs: "):
        image_files(volume)


def test_a_path_that_no_file_can_have_fails_alone(linnaeus, photos):
    """The system says so in a way of its own."""
    long = "a" * 300 + ".png"
    result = linnaeus(
        "classify", long, photos / "b.png", "--model", "colors", "--format", "jsonl"
    )

    assert result.exit_code == 1
    broken, whole = lines(result)
    assert "too long" in broken["error"]["detail"]
    assert whole["predictions"][0]["label"] == "blue"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("*.png", ["b.png"]), ("**/*.png", ["b.png", "c.png"]), ("[a]*", ["a.PNG"])],
)
def test_a_glob_is_expanded_where_the_shell_does_not(linnaeus, photos, pattern, names):
    """Quoted, or on Windows."""
    glob = f"{photos}/{pattern}"

    result = linnaeus("classify", glob, "--model", "colors", "--format", "jsonl")

    assert [line["path"].rpartition("/")[2] for line in lines(result)] == names


def test_a_folder_that_a_glob_finds_is_no_image(linnaeus, photos):
    """`photos/*` finds folders, too; `**` looks into them."""
    (photos / "c.png").mkdir()

    glob = photos / "*.png"
    result = linnaeus("classify", glob, "--model", "colors", "--format", "jsonl")

    assert result.exit_code == 0, result.output
    assert [Path(line["path"]).name for line in lines(result)] == ["b.png"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(linnaeus, tmp_path):
    """Phones and downloads number copies in brackets."""
    path = tmp_path / "copy [1].png"
    path.write_bytes(png((240, 10, 10)))

    result = linnaeus("classify", path, "--model", "colors", "--format", "jsonl")

    assert lines(result)[0]["path"] == str(path)


def test_a_table_shows_a_name_as_it_is(linnaeus, tmp_path):
    """Brackets are no colors of the terminal, and colons no emoji."""
    path = tmp_path / ":cat: [red].png"
    path.write_bytes(png((240, 10, 10)))

    assert str(path) in linnaeus("classify", path, "--model", "colors").stdout


def test_a_table_shows_what_would_steer_the_terminal(linnaeus, tmp_path):
    """A name may hold any character but two, and archives hold names of strangers."""
    (tmp_path / "a\x1b]0;title\x07\u202e\n.png").write_bytes(png((240, 10, 10)))

    result = linnaeus("classify", tmp_path, "--model", "colors")

    assert r"a\x1b]0;title\x07\u202e\n.png" in result.stdout


def test_a_table_shows_what_failed_as_it_is_too(linnaeus, tmp_path):
    """In the row of it and in its reason."""
    bad, gone = tmp_path / "[b]\x1b.txt", tmp_path / "gone\x1b.png"
    bad.write_text("no image")

    result = linnaeus("classify", bad, gone, "--model", "colors")

    assert result.exit_code == 1
    assert r"[b]\x1b.txt" in result.stdout
    assert result.stdout.count(r"gone\x1b.png") == 2


def test_a_path_is_folded_and_not_cut_off_on_a_narrow_terminal(
    linnaeus, photos, monkeypatch
):
    """Its end is what tells images apart."""
    monkeypatch.setenv("COLUMNS", "40")

    assert "…" not in linnaeus("classify", photos, "--model", "colors").stdout


def test_a_named_file_is_tried_whatever_its_suffix(linnaeus, photos):
    """And fails alone: the others are answered, in order, and the exit code is 1."""
    names = (photos / "a.PNG", photos / "notes.txt", "missing.png", photos / "b.png")

    result = linnaeus("classify", *names, "--model", "colors", "--format", "jsonl")

    assert result.exit_code == 1
    assert "2 of 4 images failed" in result.stderr
    first, second, third, last = lines(result)
    assert first["predictions"][0]["label"] == "red"
    assert second["error"]["code"] == "image_format_unsupported"
    assert third["error"]["code"] == "image_undecodable"
    assert "missing.png" in third["error"]["detail"]
    assert last["predictions"][0]["label"] == "blue"


def test_each_line_of_jsonl_is_written_before_the_next_image_is_awaited(tmp_path):
    """Whoever reads it works along."""
    path = tmp_path / "answers.jsonl"

    def results():
        for n in range(3):
            assert path.read_text().count("\n") == n
            yield Path("a.png"), EmptyImageError("the image is empty")

    with path.open("w") as out:
        assert write_jsonl(results(), out) == 3


def test_jsonl_is_what_the_library_says(linnaeus, models, photos):
    """The same bytes give the same scores, with no digit lost."""
    result = linnaeus("classify", photos, "--model", "colors", "--format", "jsonl")

    library = Classifier.load(models / "colors")
    for line in lines(result):
        answer = library.classify(line["path"])
        assert line["task"] == answer.task
        assert line["image"] == {"width": 8, "height": 8, "format": "PNG"}
        for said, expected in zip(line["predictions"], answer.predictions, strict=True):
            assert said["label"] == expected.label
            assert said["score"] == pytest.approx(expected.score, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "members", "prediction"),
    [
        ("colors", set(), set()),
        ("is-red", {"decision"}, {"threshold"}),
        ("has", set(), {"threshold"}),
        ("shades", {"groups"}, set()),
    ],
)
def test_jsonl_has_no_member_that_does_not_apply(
    linnaeus, photos, model, members, prediction
):
    """As over HTTP: what is not there is left out, not null or false."""
    result = linnaeus("classify", photos, "--model", model, "--format", "jsonl")

    for line in lines(result):
        assert (
            set(line) == {"path", "task", "image", "predictions", "warnings"} | members
        )
        for said in line["predictions"]:
            assert set(said) == {"label", "index", "id", "score"} | prediction


def test_jsonl_says_that_a_model_abstained(linnaeus, photos):
    """Only then."""
    options = ("--format", "jsonl", "--model", "colors", "--threshold", 1)

    result = linnaeus("classify", photos / "more", *options)

    [line] = lines(result)
    assert (line["abstained"], line["predictions"]) == (True, [])


@pytest.mark.parametrize(
    ("output", "first"), [("csv", "image,rank"), ("jsonl", '{"path'), ("table", "  ")]
)
def test_a_terminal_has_a_bar_beside_the_file_of_the_answers(
    linnaeus, photos, monkeypatch, output, first
):
    """`classify photos --format csv > answers.csv`; a table comes after the bar."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm")

    result = linnaeus("classify", photos, "--model", "colors", "--format", output)

    shown = re.sub(r"\x1b\[[0-9;]*m", "", result.stderr)
    assert "3/3 100%" in shown
    assert result.stderr.endswith("\x1b[2K")  # the bar is gone
    assert result.stdout.startswith(first)
    assert all(path.name in result.stdout for path in photos.rglob("*.png"))
    if output == "table":
        assert result.output.rindex("\x1b[2K") < result.output.index("answer")


def test_one_image_has_no_bar(linnaeus, photos, monkeypatch):
    """There is nothing to wait for."""
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert not linnaeus("classify", photos / "more", "--model", "colors").stderr


@pytest.mark.parametrize(("output", "bar"), [("jsonl", False), ("table", True)])
def test_lines_on_a_terminal_have_no_bar(monkeypatch, capsys, output, bar):
    """It would stand between them."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    results = [(Path("a.png"), EmptyImageError("the image is empty"))] * 2

    assert write(results, output, ids=(), total=2) == 2

    assert ("2/2" in capsys.readouterr().err) == bar


def test_csv_has_a_row_for_each_prediction(linnaeus, photos):
    """And one for an image that failed, with its error."""
    names = (photos / "a.PNG", photos / "notes.txt")

    result = linnaeus("classify", *names, "--model", "colors", "--format", "csv")

    assert result.stderr == "1 of 2 images failed\n"
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert (rows[0]["image"], rows[0]["label"]) == (str(names[0]), "red")
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert rows[-1]["error"].startswith("not an image of an accepted format")


def test_a_binary_row_has_the_label_decided_on_and_its_own_score(
    linnaeus, models, photos
):
    """Over HTTP the one prediction is the positive label; a row says what it is."""
    names = (photos / "a.PNG", photos / "b.png")

    result = linnaeus("classify", *names, "--model", "is-red", "--format", "csv")

    red, blue = csv.DictReader(result.stdout.splitlines())
    assert (red["label"], red["index"], red["decision"]) == ("red", "1", "red")
    assert (blue["label"], blue["index"]) == ("not red", "0")
    assert (red["id"], blue["id"]) == ("red", "not-red")
    assert blue["decision"] == "not red"
    [positive] = Classifier.load(models / "is-red").classify(names[1]).predictions
    assert float(blue["score"]) == pytest.approx(1 - positive.score, abs=1e-6)
    table = linnaeus("classify", names[1], "--model", "is-red").stdout
    assert f"{1 - positive.score:.3f}" in table


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("colors", ["a.PNG", "red", "1.000", "green"]),
        ("is-red", ["b.png", "not red"]),
        ("has", ["a.PNG", "red"]),
        ("shades", ["red (best group: warm 1.00)", "blue (best group: cold 1.00)"]),
    ],
)
def test_the_table_shows_what_each_task_decided(linnaeus, photos, model, expected):
    """The answer, its score and what comes next."""
    result = linnaeus("classify", photos, "--model", model)

    assert result.exit_code == 0, result.output
    for text in expected:
        assert text in result.stdout


def test_an_image_without_a_label_is_told_as_such(linnaeus, tmp_path):
    """Nothing over the threshold, or an abstention: not an empty row."""
    (tmp_path / "gray.png").write_bytes(png((90, 90, 90)))

    nothing = linnaeus("classify", tmp_path, "--model", "has", "--threshold", 1)
    abstained = linnaeus("classify", tmp_path, "--model", "colors", "--threshold", 1)

    assert "no label over its threshold" in nothing.stdout
    assert "abstained" in abstained.stdout
    assert (nothing.exit_code, abstained.exit_code) == (0, 0)


def answer(*scores: float, groups=None) -> Classification:
    """One of a model whose labels are called `[b0]` and so on."""
    return Classification(
        task=Task.FINE_GRAINED if groups else Task.MULTICLASS,
        predictions=tuple(
            Prediction(f"[b{index}]", index, f"id-{index}", score, None)
            for index, score in enumerate(scores)
        ),
        decision=None,
        abstained=not scores,
        groups=groups,
        image=ImageInfo(width=8, height=8, format="PNG"),
        warnings=(),
    )


@pytest.mark.parametrize(
    ("classification", "cells"),
    [
        (answer(0.98, 0.0049), "[b0] 0.980"),
        (answer(0.95, 0.044, 0.006), "[b0] 0.950 [b1] 0.04, [b2] 0.01"),
        (
            answer(0.5, groups=(GroupScore("[b]", 0.75),)),
            "[b0] (best group: [b] 0.75) 0.500",
        ),
        (answer(), "abstained"),
    ],
)
def test_a_row_of_the_table_is_rounded_for_eyes(classification, cells):
    """To two digits beside the best, whose score has three."""
    out = io.StringIO()

    assert write_table([(Path("a.png"), classification)], out) == 0

    assert out.getvalue().splitlines()[3].split() == ["a.png", *cells.split()]


@pytest.mark.parametrize(
    ("classification", "rows"),
    [
        (
            answer(0.95, 0.0123456789),
            [
                ["a.png", "1", "[b0]", "cat", "0", "0.950000", "", ""],
                ["a.png", "2", "[b1]", "dog", "1", "0.012346", "", ""],
            ],
        ),
        (answer(), [["a.png", "", "", "", "", "", "", ""]]),
        (EmptyImageError("it is empty"), [["a.png", *[""] * 6, "it is empty"]]),
    ],
)
def test_each_row_of_csv_has_all_columns(classification, rows):
    """One says that there is no label, or why there is none."""
    out = io.StringIO()

    write_csv([(Path("a.png"), classification)], out, ids=("cat", "dog"))

    head, *written = csv.reader(io.StringIO(out.getvalue()))
    assert written == rows
    assert len(head) == len(rows[0])


def test_the_table_has_no_label_whose_score_it_would_show_as_0(linnaeus, photos):
    """A model of a thousand labels has four of them beside each sure answer."""
    result = linnaeus("classify", photos / "a.PNG", "--model", "colors/1")

    assert "red" in result.stdout
    assert "green" not in result.stdout
    assert "0.00" not in result.stdout


def test_a_version_and_a_number_of_labels_can_be_chosen(linnaeus, photos):
    """NAME is the newest version, NAME/1 the first; a path works as well."""
    image = photos / "a.PNG"

    def shown(*options: object) -> int:
        result = linnaeus("classify", image, "--format", "jsonl", *options)
        return len(lines(result)[0]["predictions"])

    assert shown("--model", "colors") == 2
    assert shown("--model", "colors/1") == 3
    assert shown("--model", "colors", "--top-k", 1) == 1


def test_a_folder_of_the_name_of_a_model_is_not_taken_for_it(
    linnaeus, photos, monkeypatch
):
    """Such as that of the photos, where the command is typed."""
    (photos / "colors").mkdir()
    monkeypatch.chdir(photos)

    result = linnaeus("classify", photos / "a.PNG", "--model", "colors")

    assert result.exit_code == 0, result.output


def test_a_model_may_be_a_path(linnaeus, models, photos):
    """Outside the models folder."""
    result = linnaeus(
        "classify", photos, "--model", models / "colors", "--models", photos
    )

    assert result.exit_code == 0, result.output


def test_a_name_that_is_not_utf_8_does_not_end_the_run(linnaeus, tmp_path):
    """Old archives hold such files; their paths come out as they went in."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(path, "wb") as file:
        file.write(png((240, 10, 10)))

    for output in ("jsonl", "csv", "table"):
        result = linnaeus("classify", tmp_path, "--model", "colors", "--format", output)
        assert result.exit_code == 0, result.exception
        assert "red" in result.stdout_bytes.decode(errors="replace")
    result = linnaeus("classify", tmp_path, "--model", "colors", "--format", "jsonl")
    assert os.fsencode(lines(result)[0]["path"]) == path


def test_no_image_at_all_is_a_usage_error(linnaeus, tmp_path):
    """Not an empty success."""
    result = linnaeus("classify", tmp_path, "*.gif", "--model", "colors")

    assert result.exit_code == 2
    assert f"no image among: {tmp_path} *.gif" in result.stderr


def test_a_name_of_no_letters_is_no_folder(linnaeus, photos, monkeypatch):
    """`classify "$FILE"` with nothing in it is a mistake, not all that is here."""
    monkeypatch.chdir(photos)

    result = linnaeus("classify", "", "--model", "colors")

    assert result.exit_code == 2
    assert "no image among: ''" in result.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("output", ["table", "csv", "jsonl"])
def test_a_letter_that_the_terminal_lacks_does_not_end_the_run(
    models, tmp_path, encoding, output
):
    """It becomes a question mark; the bytes of a file's name stay as they are."""
    path = os.fsencode(tmp_path) + "/\u65e5".encode() + b"-\xe9.png"
    with open(path, "wb") as file:
        file.write(png((240, 10, 10)))

    result = subprocess.run(
        [
            *(sys.executable, "cli.py", "classify", tmp_path, "--format", output),
            *("--models", models, "--model", "colors"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "240"},
        capture_output=True,
        check=True,
    )

    assert b"red" in result.stdout
    assert output == "jsonl" or b"?-\xe9.png" in result.stdout


@pytest.mark.parametrize("missing", ["*.gif", "empty"])
def test_a_name_that_finds_nothing_fails_alone(linnaeus, photos, missing):
    """As a file that is not there: the others are answered, and the exit code is 1."""
    (photos / "empty").mkdir()

    result = linnaeus(
        *("classify", photos / "more", photos / missing),
        *("--model", "colors", "--format", "jsonl"),
    )

    assert result.exit_code == 1
    assert f"no image among: {photos / missing}" in result.stderr
    [line] = lines(result)
    assert line["predictions"][0]["label"] == "green"


def test_the_only_model_answers_unless_one_is_named(linnaeus, photos, tmp_path):
    """As in the service; of several it is imagenet."""
    own = make_bundle(tmp_path / "own", "cats-of-mine").parents[1]
    options = ("--models", own, "--format", "jsonl")

    alone = linnaeus("classify", photos / "more", *options)
    make_bundle(own, "imagenet", classes=2)
    preferred = linnaeus("classify", photos / "more", *options)

    assert alone.exit_code == preferred.exit_code == 0, alone.output
    assert len(lines(alone)[0]["predictions"]) == 3
    assert len(lines(preferred)[0]["predictions"]) == 2


def test_of_several_models_without_imagenet_one_must_be_named(linnaeus, photos):
    """Guessing would answer with the wrong one."""
    result = linnaeus("classify", photos)

    assert isinstance(result.exception, BundleError)
    assert "--model" in str(result.exception)
    assert "colors/1, colors/2, has/1, is-red/1, shades/1" in str(result.exception)


@pytest.mark.parametrize("wanted", ["nonsense", "colors/3"])
def test_a_model_that_is_not_there_is_missed_where_it_was_looked_for(
    linnaeus, models, photos, wanted
):
    """With the bundles that are there, from which to choose."""
    result = linnaeus("classify", photos, "--model", wanted)

    said = str(result.exception)
    assert repr(wanted) in said
    assert f"{models} holds colors/1, colors/2, has/1" in said


def test_a_models_folder_that_is_not_there_is_said_to_be_none(linnaeus, tmp_path):
    """Rather than that each model is missing."""
    (tmp_path / "a.png").write_bytes(png((240, 10, 10)))

    result = linnaeus("classify", tmp_path, "--models", tmp_path / "none")

    assert isinstance(result.exception, BundleError)
    said = f"--model must name a model: {tmp_path / 'none'} is no folder; --models"
    assert str(result.exception).startswith(said)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--model", "nonsense"), BundleError),
        (("--model", "colors/3"), BundleError),
        (("--model", "x" * 300), BundleError),  # no name of a file is so long
        (("--model", "colors", "--precision", "fp16"), BundleError),
        pytest.param(
            ("--model", "colors", "--device", "cuda"),
            DeviceUnavailableError,
            marks=pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here"),
        ),
        (("--model", "colors", "--top-k", "0"), RequestError),
        (("--model", "colors", "--threshold", "1.5"), RequestError),
    ],
)
def test_what_cannot_be_honored_is_one_of_our_errors(linnaeus, photos, options, error):
    """`main` makes one line of it."""
    result = linnaeus("classify", photos, *options)

    assert isinstance(result.exception, error)


def test_an_error_is_one_clear_line_and_exit_code_1(models, photos):
    """No traceback for a mistake in the command."""
    code = "import sys, cli; sys.argv[0] = 'linnaeus'; cli.main()"

    result = python(
        code, "classify", photos, "--models", models, "--model", "no", check=False
    )

    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("linnaeus: there is no model 'no': ")


def test_a_dash_is_standard_input(models):
    """`curl … | linnaeus classify -`, as with other tools."""
    result = subprocess.run(
        [
            *(sys.executable, "cli.py", "classify", "-", "--format", "jsonl"),
            *("--models", models, "--model", "colors"),
        ],
        cwd=ROOT,
        input=png((10, 240, 10)),
        capture_output=True,
        check=True,
    )

    [line] = result.stdout.splitlines()
    assert json.loads(line)["predictions"][0]["label"] == "green"
