"""A label file is read as it is meant, or refused in its own terms."""

import pytest

from classifier.manifest import MAX_LABELS
from training.errors import AnswerError
from training.foreign.labels import MAX_LABEL_BYTES, read_labels


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


@pytest.mark.parametrize("ids", ["201", "312"])
def test_ids_that_number_the_outputs_are_in_their_order(tmp_path, ids):
    """A table may be sorted by something else; every class would be shifted."""
    names = ("emu", "cat", "dog")
    rows = [f"{k},{name}" for k, name in zip(ids, names, strict=True)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,name", *rows]))

    with pytest.raises(AnswerError, match=f"'{ids[0]}' comes first. .* sort it by id"):
        read_labels(str(path))

    path.write_text("\n".join(["id,name", *sorted(rows)]))
    assert [label.name for label in read_labels(str(path))] == ["cat", "dog", "emu"]


def test_labels_that_are_numbers_may_be_in_any_order(tmp_path):
    """Where they are names, too, or are no numbering."""
    path = tmp_path / "labels.csv"
    folders = sorted(map(str, range(1, 103)))  # 1, 10, 100, 101, …
    flowers = "".join(f"{k},flower {k}\n" for k in folders)
    tables = ("7,emu\n3,cat\n", "9,a\n8,b\n", flowers)
    for text in ("name\n2\n0\n1\n", *(f"id,name\n{rows}" for rows in tables)):
        path.write_text(text)
        assert read_labels(str(path))


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
