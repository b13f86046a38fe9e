"""What the user says is read as it is meant, or refused by name."""

from pathlib import Path

import numpy as np
import pytest

from classifier.manifest import MAX_LABELS
from tests.training.foreign.strangers import stranger
from training.errors import AnswerError
from training.foreign.answers import (
    MAX_LABEL_BYTES,
    PRESETS,
    parse_answers,
    read_labels,
)
from training.foreign.facts import settle
from training.foreign.findings import examine
from training.foreign.verify import normalize

ROOT = Path(__file__).parents[3]
ORANGE = np.array([[[255, 128, 0]]], np.uint8)  # [1, 1, RGB]

# What each library's own code makes of it, in the order of the network's channels.
IMAGENET = [
    (1 - 0.485) / 0.229,
    (128 / 255 - 0.456) / 0.224,
    (0 - 0.406) / 0.225,
]
PREPARED = {
    "torchvision": IMAGENET,
    "timm": IMAGENET,
    "keras-0..1": [1, 128 / 255, 0],
    "keras--1..1": [1, 128 / 127.5 - 1, -1],
    "keras-caffe": [0 - 103.939, 128 - 116.779, 255 - 123.68],  # blue first
    "keras-0..255": [255, 128, 0],
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_prepares_a_pixel_as_its_library_does(tmp_path, preset):
    """A mean of another library gives plausible nonsense, and no proof can see it."""
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd")
    said = {
        "preset": preset,
        "labels": str(tmp_path / "labels.txt"),
        "task": "multiclass",
        "resize": "squash",
        "interpolation": "bilinear",
    }
    if preset in ("keras-0..1", "keras--1..1", "keras-0..255"):  # of either order
        said["color"] = "rgb"

    facts = settle(examine(stranger()), parse_answers(said))

    assert normalize(ORANGE, facts).ravel() == pytest.approx(PREPARED[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_page_has_the_numbers_of_a_preset(preset):
    """By its name alone nobody can tell whether they are those of the training."""
    scale, mean, std, color = PRESETS[preset]
    numbers = [",".join(f"{n:g}" for n in each) for each in ((scale,), mean, std)]
    cells = [f"`{preset}`", *numbers, color or ""]

    lines = (ROOT / "docs/import.md").read_text(encoding="utf-8").splitlines()

    assert cells in [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "30x20", (30, 20)),  # height first
        ("size", "30X20", (30, 20)),
        ("size", "30", (30, 30)),
        ("color", " BGR ", "bgr"),
        ("layout", "nhwc", "NHWC"),
        ("mean", "1, 2,-3e-1", (1, 2, -0.3)),
        ("threshold", "0,1", (0, 1)),
        ("output_name", " scores ", "scores"),
        ("top_k", "3", 3),
        ("background", "1,2,3", (1, 2, 3)),
    ],
)
def test_an_option_is_read_as_it_is_meant(name, text, value):
    """Capitals and blanks around it mean nothing."""
    assert getattr(parse_answers({name: text}), name) == value


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("threshold", "0.5,1.01", "'0.5,1.01'; thresholds are scores from 0 to 1"),
        ("top_k", "0", "'0'; a whole number from 1 on"),
        ("short_side", "-3", "'-3'; a whole number from 1 on"),
        ("scale", "1,255", "'1,255'; one number is needed"),
        ("top_k", "9" * 5000, "'999.*9'; a whole .* of at most 9 digits"),
        ("size", "8x" + "9" * 5000, "'999.*9'; a whole .* of at most 9 digits"),
    ],
)
def test_an_option_that_cannot_be_read_is_named_with_what_can(name, text, why):
    with pytest.raises(AnswerError, match=f"{name} is {why}"):
        parse_answers({name: text})


def test_an_enormous_file_of_labels_is_not_read(tmp_path):
    """Such as the network itself, given by mistake."""
    path = tmp_path / "labels.txt"
    path.write_bytes(bytes(MAX_LABEL_BYTES + 1))

    with pytest.raises(AnswerError, match=f"more than {MAX_LABEL_BYTES} bytes"):
        read_labels(str(path))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_labels_in_another_encoding_than_utf_8_are_refused(tmp_path, encoding):
    """Read as if they were UTF-8, they would be other names."""
    path = tmp_path / "labels.txt"
    path.write_bytes("crane\nMöwe\n".encode(encoding))

    with pytest.raises(AnswerError, match=r"labels\.txt: 'utf-8' codec can't decode"):
        read_labels(str(path))


def test_a_table_gives_ids_names_and_groups(tmp_path):
    """The mark that spreadsheets put in front of UTF-8 belongs to no column."""
    path = tmp_path / "LABELS.CSV"
    path.write_text("\ufeffid,name,group\nc1,crane,birds\nn2,newt,\n")

    labels = read_labels(str(path))

    assert [(label.id, label.name, label.group) for label in labels] == [
        ("c1", "crane", "birds"),
        ("n2", "newt", None),
    ]


@pytest.mark.timeout(20)  # each compared with all others, it would be minutes
def test_as_many_labels_are_read_as_a_bundle_may_have(tmp_path):
    """Twenty thousand names of species are no rarity."""
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(f"label {n}" for n in range(MAX_LABELS)))

    assert len(read_labels(str(path))) == MAX_LABELS
    with path.open("a") as more:  # not cut off: their number has to be the network's
        more.write("\none more")
    assert len(read_labels(str(path))) > MAX_LABELS


@pytest.mark.parametrize(
    ("suffix", "first", "line", "last"),
    [
        (".txt", "", "{}\n", ""),
        (".csv", "name\n", "{}\n", ""),
        (".json", "[", '"{}",', '"x"]'),
    ],
)
def test_one_label_more_than_a_bundle_may_have_is_the_last_that_is_read(
    tmp_path, suffix, first, line, last
):
    """Four million of them, in 8 MB, took 2 GB and half a minute."""
    path = tmp_path / f"labels{suffix}"
    lines = "".join(line.format(n) for n in range(2 * MAX_LABELS))
    path.write_text(f"{first}{lines}{last}")

    assert len(read_labels(str(path))) == MAX_LABELS + 1


def test_a_label_that_stands_there_twice_is_named(tmp_path):
    """An id must be one label's; names alone may repeat, in a CSV file."""
    path = tmp_path / "labels.txt"
    path.write_text("crane\nheron\ncrane\n")

    with pytest.raises(AnswerError, match="'crane' twice; use a CSV file"):
        read_labels(str(path))


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("a.txt", "crane\n\nheron\n", "line 2 is empty"),
        ("a.txt", "\n \n", "has no labels"),
        ("a.txt", "crane\n" + "x" * 2000, "line 2: id: String should have at most"),
        ("a.csv", "id,label\n1,crane\n", "columns are 'id', 'label'; `name` is needed"),
        ("a.csv", "", "columns are none; `name` is needed"),
        ("a.csv", "id,name\n1,crane\n2\n", "line 3 has no name"),
        ("a.csv", 'id,name,group\n1,crane,"a\tb"\n', r"line 2: group: .*'a\\tb' has"),
        ("a.csv", "name\n" + "x" * 200_000, "field larger than field limit"),
        ("a.csv", 'id,name\n1,"cra\nne"\n', r"line 3: name: .*'cra\\nne' has"),
        ("a.csv", "id,name\n1,crane, Grus\n", "line 2 has 3 values for 2 columns"),
        ("a.csv", "id,name\n1, \n", "line 2: name: String should have at least 1"),
        ("a.txt", "crane\fheron\n", r"line 1: id: .*'crane\\x0cheron' has"),
        ("a.json", '{"0": "crane", "2": "heron"}', 'no "1"; 2 labels are numbered'),
        ("a.json", '["crane", ["heron"]]', r"label 1 is \['heron'\]; \"name\" or"),
        ("a.json", '["crane", 7]', 'label 1 is 7; "name" or'),
        ("a.json", '{"0": "crane", "0": "heron"}', "the key '0' twice"),
        ("a.csv", "id,name,name\nc1,crane,heron\n", "the column 'name' twice"),
        ("a.json", "7", "neither a list of names nor"),
        ("a.json", '["crane",', "line 1 column 10"),
        ("a.json", "[" * 100_000, "recursion depth"),
    ],
)
def test_a_file_of_no_labels_is_told_where_and_what_is_read(tmp_path, file, text, why):
    """In the file's own terms."""
    (tmp_path / file).write_text(text)

    with pytest.raises(AnswerError, match=rf"{file}.* {why}"):
        read_labels(str(tmp_path / file))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.txt", "\n crane\nheron \n\n"),
        ("a.csv", "name,id\ncrane,\n\nheron,heron\n"),
        ("a.csv", "name,id,group\n crane,crane ,\nheron, heron, \n"),
        ("a.json", '["crane", ["heron", "heron"]]'),
        ("a.json", '{"1": "heron", "0": ["crane", "crane"]}'),
    ],
)
def test_each_kind_of_file_holds_the_same_labels(tmp_path, file, text):
    """What surrounds the names is nobody's label."""
    (tmp_path / file).write_text(text)

    labels = read_labels(str(tmp_path / file))

    assert [(label.id, label.name, label.group) for label in labels] == [
        ("crane", "crane", None),
        ("heron", "heron", None),
    ]


@pytest.mark.parametrize("file", ["a.txt", "a.csv"])
def test_only_the_end_of_a_line_ends_a_label(tmp_path, file):
    """A separator that a website has left in a name would move all labels behind it."""
    name = "crane\u2028Grus grus"
    text = f"name\n{name}\nheron\n" if file == "a.csv" else f"{name}\r\nheron\r\n"
    (tmp_path / file).write_bytes(text.encode())

    labels = read_labels(str(tmp_path / file))

    assert [label.name for label in labels] == [name, "heron"]
