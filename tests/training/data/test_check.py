"""`data check` finds what is broken, twice there, or leaks; and nothing else."""

import io
import itertools
import json
import shutil
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from typer.testing import CliRunner

from tests.training.data.pictures import encoded, picture, write_tree
from training.commands.data import app
from training.data import load_dataset
from training.data.check import check


@pytest.fixture
def tree(tmp_path):
    """Sound data: 12 pictures in train, 4 in test, all different."""
    write_tree(tmp_path / "train", {"red": 6, "blue": 6})
    write_tree(tmp_path / "test", {"red": 2, "blue": 2}, first=100)
    return tmp_path


def test_sound_data_has_no_findings(tree):
    """Pictures of one color are alike, and yet not the same."""
    findings = check(load_dataset(tree))

    assert findings.sound
    assert findings.duplicates == []
    assert findings.images == {"test": 4, "train": 12}
    assert findings.labels["train"] == {"blue": 6, "red": 6}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a.png,x\nb.png,y\nc.png,y\n", "read as one label an image\n"),
        (
            'a.png,"x, y"\nb.png,y\nc.png,x;y\n',
            "one label an image; 2 labels have a comma or semicolon, and only | parts "
            "labels; the first is 'x, y'\n",
        ),
        (
            "a.png,x\nb.png,\nc.png,x|y\n",
            "several labels an image (multi-label): 1 without one, 1 with more than "
            "one; the first is {}/b.png\n",
        ),
    ],
)
def test_a_forgotten_label_is_seen_in_how_the_data_was_read(tmp_path, rows, said):
    """It alone makes a multi-label set of the CSV, and may be meant."""
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(encoded("red", ord(name)))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)

    for command in ("check", "describe"):
        outcome = CliRunner().invoke(app, [command, str(tmp_path)])
        assert outcome.exit_code == 0
        assert said.removeprefix("read as ").format(tmp_path) in outcome.output


@pytest.mark.parametrize(
    ("labels", "alike"),
    [
        (["No", "no", "yes"], [("No", "no")]),
        (
            ["red_apple", "Red apple", "red-apple", "redapple"],
            [("Red apple", "red-apple", "red_apple")],
        ),
        (["STRASSE", "Straße"], [("STRASSE", "Straße")]),
        (["A", "a", "b"], []),  # letters that are written by hand
        (["c++", "c", "c#"], []),
    ],
)
def test_labels_that_are_one_but_for_their_writing_are_found(tmp_path, labels, alike):
    """Two classes of one kind: no network can tell them apart, and each has half."""
    for number, label in enumerate(labels):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(encoded("red", number))

    findings = check(load_dataset(tmp_path))

    assert findings.labels_alike == alike
    assert findings.sound == (not alike)


def test_labels_that_are_one_are_named(tmp_path):
    """With all their writings, and the status of findings."""
    for number, label in enumerate(["Yes", "yes", "no"]):
        (tmp_path / label).mkdir()
        (tmp_path / label / "0.png").write_bytes(encoded("red", number))

    outcome = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert outcome.exit_code == 1
    assert "hyphens or underscores: 1\n  Yes ~ yes\n" in outcome.output


@pytest.mark.parametrize("command", ["check", "describe"])
def test_it_is_said_by_which_csv_data_was_read(tmp_path, command):
    """It may be of something else, and its `subset` be what is meant by the split."""
    folder = write_tree(tmp_path / "photos", {"red": 2, "blue": 2})
    rows = "file,label,subset,\nred/0.png,dark,train,\nblue/0.png,bright,test,\n"
    (folder / "camera.csv").write_text(rows)
    outcome = CliRunner().invoke(app, [command, str(folder)])

    assert outcome.exit_code == 0
    assert (
        "read by camera.csv: file, label; columns not read: subset; folders are not "
        "read as labels\n"
    ) in outcome.output
    if command == "check":
        assert "in no row): 2\n  blue/1.png\n  red/1.png\n" in outcome.output


def test_of_a_csv_that_has_all_images_no_more_is_said(tmp_path):
    """Without a column of labels all columns are read, and folders may be anything."""
    folder = write_tree(tmp_path / "photos", {"red": 1, "blue": 1})
    (folder / "a.csv").write_text("file,x,y\nred/0.png,1,0\nblue/0.png,0,1\n")
    findings = check(load_dataset(folder))

    assert findings.read_by == "a.csv: file, x, y"
    assert findings.ignored == []


def test_a_broken_file_is_named(tree):
    """Cut off in the middle, as after a full disk."""
    (tree / "train" / "red" / "cut.png").write_bytes(encoded("red", 50)[:60])
    findings = check(load_dataset(tree))

    assert [name.split("/")[-1] for name, _ in findings.broken] == ["cut.png"]
    assert not findings.sound


def test_a_damaged_member_of_a_zip_is_named(tree):
    """One bad member out of sixteen does not end the check."""
    archive = tree / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path in sorted(tree.rglob("*.png")):
            target.write(path, path.relative_to(tree))
        damaged = target.infolist()[3]
    content = bytearray(archive.read_bytes())
    lengths = struct.unpack_from("<HH", content, damaged.header_offset + 26)
    start = damaged.header_offset + 30 + sum(lengths)
    content[start] = 0x07  # there is no block of type 3
    archive.write_bytes(content)

    findings = check(load_dataset(archive))

    assert [name for name, _ in findings.broken] == [str(archive / damaged.filename)]


def test_the_same_file_in_train_and_test_is_a_leak(tree):
    """Accuracy on it measures memory."""
    (tree / "test" / "red" / "copy.png").write_bytes(encoded("red", 3))
    (leak,) = check(load_dataset(tree)).leaks

    assert leak.exact
    assert {leak.first.split("/")[-1], leak.second.split("/")[-1]} == {
        "copy.png",
        "3.png",
    }


def test_a_picture_saved_anew_is_found_too(tree):
    """Smaller, and as a JPEG: not a byte is the same."""
    smaller = picture("red", 3, side=48).resize((30, 30), Image.Resampling.LANCZOS)
    smaller.save(tree / "test" / "red" / "anew.jpg", quality=85)
    (leak,) = check(load_dataset(tree)).leaks

    assert not leak.exact


def test_the_same_picture_under_two_labels_is_a_contradiction(tree):
    """One of the two is wrong."""
    (tree / "train" / "blue" / "copy.png").write_bytes(encoded("red", 3))
    findings = check(load_dataset(tree))

    assert len(findings.contradictions) == 1
    assert not findings.leaks


def test_a_file_copied_many_times_stays_cheap(tree):
    """Told of by its neighbors: n - 1 findings, not n squared."""
    for n in range(60):
        (tree / "train" / "red" / f"copy{n}.png").write_bytes(encoded("red", 3))

    assert len(check(load_dataset(tree)).duplicates) == 60


def test_one_frame_of_many_that_look_alike_is_a_leak_too(tree):
    """A camera that stands still sees the light change, over the day and over again."""
    view = np.array(picture("red", 3)) // 2
    for n in range(60):
        frame = Image.fromarray(view + np.uint8(n // 2))
        split = "test" if n == 41 else "train"
        frame.save(tree / split / "red" / f"frame{n}.png", compress_level=n % 10)
    findings = check(load_dataset(tree))

    assert any("frame41.png" in leak.first + leak.second for leak in findings.leaks)
    assert not findings.sound
    assert len(findings.duplicates) == 60  # 61 with the one that all were made of


def test_a_brightened_copy_is_found_too(tree):
    """As a photo that was edited, at nearly full size."""
    brighter = ImageEnhance.Brightness(picture("red", 3, side=64)).enhance(1.1)
    brighter.save(tree / "test" / "red" / "brighter.jpg")
    (leak,) = check(load_dataset(tree)).leaks

    assert not leak.exact


def test_a_photo_in_another_format_is_found_too(tmp_path, data_dir):
    """Each format is made small in a way of its own, which must leave no trace."""
    photos = load_dataset(data_dir / "voc2007-multilabel.tar").parts["test"].samples
    for n in range(8):
        jpeg = photos.read(n)
        photo = Image.open(io.BytesIO(jpeg))
        half = photo.resize((photo.width // 2, photo.height // 2))
        for split in ("train", "validation", "test"):
            (tmp_path / split / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / "ab"[n % 2] / f"{n}.jpg").write_bytes(jpeg)
        photo.save(tmp_path / "validation" / "ab"[n % 2] / f"{n}.png")
        half.save(tmp_path / "test" / "ab"[n % 2] / f"{n}.webp", quality=80)
    leaks = check(load_dataset(tmp_path)).leaks

    assert Counter(Path(leak.first).stem for leak in leaks) == Counter("01234567" * 3)
    assert all(Path(leak.first).stem == Path(leak.second).stem for leak in leaks)


def test_strokes_on_an_empty_page_are_different_pictures(tmp_path):
    """Most of it is the same black, and that is no picture.

    No two of these 400 strokes are nearer at an end than half a pixel of the page.
    """
    sides = itertools.product(range(115, 165, 5), repeat=2)
    ends = itertools.product((30, 45), repeat=2)
    for n, ((top, bottom), (above, below)) in enumerate(itertools.product(sides, ends)):
        page = Image.new("L", (280, 280))
        line = (top, above, bottom, 280 - below)
        ImageDraw.Draw(page).line(line, 255, 20)
        folder = tmp_path / ("train", "test")[n % 2] / ("one", "slash")[n // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        page.resize((28, 28), Image.Resampling.BOX).save(folder / f"{n}.png")

    assert check(load_dataset(tmp_path)).sound


@pytest.mark.parametrize("second", ["train", "test"])
def test_the_same_file_in_validation_and_elsewhere_is_a_leak(tree, second):
    """What was chosen by validation is measured on it, or on what was learned."""
    write_tree(tree / "validation", {"red": 2, "blue": 2}, first=200)
    (tree / second / "red" / "copy.png").write_bytes(encoded("red", 200))
    findings = check(load_dataset(tree))

    assert [leak.exact for leak in findings.leaks] == [True]
    assert not findings.sound


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_what_is_in_train_twice_can_be_parted_by_a_cut(tree, missing):
    """A copy beside its original, where one of the other splits is not there yet."""
    (tree / "train" / "red" / "3 copy.png").write_bytes(encoded("red", 3))
    write_tree(tree / "validation", {"red": 2, "blue": 2}, first=200)
    given = check(load_dataset(tree))
    shutil.rmtree(tree / missing)
    uncut = check(load_dataset(tree))

    assert len(uncut.parted) == 1
    assert not uncut.sound
    assert len(given.duplicates) == 1
    assert given.sound


def test_the_command_reports_and_fails_on_findings(tree, repository):
    """Status 1, so that it can stand in a pipeline."""
    (tree / "test" / "red" / "copy.png").write_bytes(encoded("red", 3))
    done = subprocess.run(
        [sys.executable, "-m", "cli", "data", "check", str(tree), "--json"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert json.loads(done.stdout)["duplicates"][0]["leaks"]


def test_each_kind_of_finding_has_its_own_examples(tree):
    """Five of them, and how many more there are."""
    copy, anew = tree / "test" / "red" / "copy.png", tree / "test" / "blue" / "anew.jpg"
    copy.write_bytes(encoded("red", 3))
    picture("blue", 4, side=48).save(anew, quality=85)
    (tree / "train" / "blue" / "other.png").write_bytes(encoded("red", 5))
    for n in range(7):
        (tree / "train" / "red" / f"broken{n}.png").write_bytes(b"x")

    text = CliRunner().invoke(app, ["check", str(tree)]).stdout

    assert "\ntest: 6 images (blue 3, red 3)\n" in text
    assert text.endswith("\nlook at the findings above\n")
    sections: dict[str, list[str]] = {}
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("  "):
            found.append(line.strip())
        else:
            found = sections[line.partition(":")[0].partition(" (")[0]] = []
    for n in range(5):
        assert f"broken{n}.png: " in sections["broken"][n]
    assert sections["broken"][5:] == ["… and 2 more (--json lists all)"]
    exact, alike = sections["the same file twice"], sections["the same picture twice"]
    assert len(exact) == 2
    assert any("copy.png" in line and " = " in line for line in exact)
    assert any("other.png" in line for line in exact)
    assert len(alike) == 1
    assert "anew.jpg" in alike[0]
    leaks = " ".join(sections["in two of train, validation and test"])
    assert [name in leaks for name in ("copy", "anew", "other")] == [True, True, False]
    [contradiction] = sections["the same picture under different labels"]
    assert "other.png" in contradiction


def test_data_are_described_split_by_split(tree):
    """How the labels were read, and how often each occurs: of twenty, it says so."""
    for n in range(19):
        (tree / "train" / f"hue{n:02}").mkdir()
        (tree / "train" / f"hue{n:02}" / "1.png").write_bytes(b"not looked into")

    said = CliRunner().invoke(app, ["describe", str(tree)]).stdout.splitlines()

    assert said[0] == f"{tree.name}: 21 labels, one label an image"
    hues = ", ".join(f"hue{n:02} 1" for n in range(19))
    assert said[1].startswith("test: 4 images (blue 2, hue00 0, ")
    assert said[2:] == [f"train: 31 images (blue 6, {hues} and 1 more)"]


def test_groups_are_told_where_labels_have_some(tmp_path):
    """A fine-grained task is meant, or a hyphen stands where it should not."""
    write_tree(tmp_path, {"red": 1, "blue": 1})
    (tmp_path / "red").rename(tmp_path / "apple-red")
    (tmp_path / "blue").rename(tmp_path / "apple-blue")

    plain = CliRunner().invoke(app, ["describe", str(tmp_path)]).stdout
    write_tree(tmp_path, {"green": 1})
    grouped = CliRunner().invoke(app, ["describe", str(tmp_path)]).stdout

    assert "groups:" not in plain
    assert grouped.endswith("groups: apple, green\n")


def test_data_that_cannot_be_read_is_told_from_data_with_findings(tmp_path):
    """Status 2, and a file without an image suffix is no finding."""
    folder = write_tree(tmp_path / "data", {"red": 1, "blue": 1})
    (folder / "red" / "notes.heic").write_bytes(b"x")

    for path, status, end in (
        (folder, 0, "nothing wrong\n"),
        (tmp_path / "none", 2, ""),
    ):
        result = CliRunner().invoke(app, ["check", str(path)])
        assert (result.exit_code, result.stdout[-14:]) == (status, end)


def test_what_is_in_a_name_is_no_order_to_the_terminal(tmp_path):
    """A file may have any name; one that ends a line would look like two findings."""
    write_tree(tmp_path, {"red": 1, "blue": 1})
    (tmp_path / "red" / "\x1b[2Ja\nb.txt").touch()

    text = CliRunner().invoke(app, ["check", str(tmp_path)]).stdout

    assert r"red/\x1b[2Ja\nb.txt" in text
    assert "\x1b" not in text
