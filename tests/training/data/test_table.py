"""A CSV says which file has which labels; what is wrong in it is named by line."""

import tracemalloc
import zipfile
from unicodedata import normalize

import numpy as np
import pytest

from tests.training.data.pictures import encoded
from training.data import load_dataset, rows
from training.data import table as table_module
from training.data.relabel import as_binary
from training.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Writes labels.csv, and the pictures a.png to d.png beside it."""
    for n, name in enumerate("abcd"):
        (tmp_path / f"{name}.png").write_bytes(encoded("red", n))

    def write(text: str):
        (tmp_path / "labels.csv").write_bytes(text.encode())
        return tmp_path / "labels.csv"

    return write


def test_several_labels_are_separated_by_a_bar(write):
    """The order of the labels is alphabetical."""
    dataset = load_dataset(
        write("filename,labels\na.png,dog|tree\nb.png,cat\nc.png,\n")
    )

    assert dataset.label_names == ("cat", "dog", "tree")
    assert dataset.multi_label
    assert dataset.train.labels.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_a_column_a_label_says_the_same(write):
    """One-hot columns; any other content is an error that names the cell."""
    text = "file,cat,dog\na.png,1,0\nb.png,0,1\nc.png,1,1\n"
    assert load_dataset(write(text)).train.labels.tolist() == [[1, 0], [0, 1], [1, 1]]

    text = "file,cat,dog\na.png,1.00,\nb.png,0.00,TRUE\nc.png, 1., false\n"
    assert load_dataset(write(text)).train.labels.tolist() == [0, 1, 0]

    with pytest.raises(DataError, match=r"line 3: column 'dog' holds 'yes'"):
        load_dataset(write("file,cat,dog\na.png,1,0\nb.png,0,yes\n"))


def test_a_row_of_another_number_of_labels_is_named_where_there_must_be_one(write):
    """Several, or none; as names or as columns."""
    text = "file,labels\na.png,x\nb.png,y\nc.png,x|y\n"
    with pytest.raises(DataError, match="line 4: 2 labels where exactly one"):
        load_dataset(write(text), multi_label=False)
    with pytest.raises(DataError, match="line 3: 0 labels where exactly one"):
        load_dataset(write("file,x,y\na.png,1,0\nb.png,0,0\n"), multi_label=False)


def test_one_label_an_image_becomes_class_indices(write):
    """Unless the task says that it is multi-label data."""
    path = write("path,label\na.png,dog\nb.png,cat\nc.png,dog\n")

    assert load_dataset(path).train.labels.tolist() == [1, 0, 1]
    assert load_dataset(path, multi_label=True).multi_label


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 2), ("utf-16", 1)])
def test_a_table_of_another_encoding_is_told_how_to_save_it(tmp_path, encoding, line):
    """Spreadsheets offer both, and a `codec` says nothing to their users."""
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,größe\n", encoding=encoding)

    with pytest.raises(DataError, match=f'line {line} is not UTF-8; .* "CSV UTF'):
        load_dataset(table)


def test_more_labels_than_a_bundle_holds_are_refused_before_their_array(
    write, monkeypatch
):
    """Two labels a row, each of its own: 120,000 rows asked for 27 GB."""
    monkeypatch.setattr(table_module, "MAX_LABELS", 3)

    with pytest.raises(DataError, match="has 4 labels; at most 3 are allowed"):
        load_dataset(write("file,labels\na.png,c|d\nb.png,e|f\n"))


@pytest.mark.parametrize(("multi_label", "most"), [(False, 0.5), (True, 2.5)])
def test_many_labels_fit_into_memory(tmp_path, multi_label, most):
    """A Python object for each image and label would be 10 GB for ImageNet.

    `most` is in bytes for each: none, or 0 and 1 with a copy of them for a split.
    """
    count = 3000
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        rows = [f"{n}.png,{count - n}" for n in range(count)]
        target.writestr("labels.csv", "\n".join(["file,label", *rows]))
        for n in range(count):
            target.writestr(f"{n}.png", b"")

    peaks = []
    for _ in range(2):
        tracemalloc.start()
        dataset = load_dataset(tmp_path / "a.zip", multi_label=multi_label)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert len(dataset.label_names) == len(dataset.train) == count
    # Parts of paths are interned. Python's table of such strings grows now and then, by
    # 19 MB where many libraries are loaded, but not in two loads one after the other.
    assert min(peaks) < most * count**2


def test_more_rows_than_files_are_refused_before_all_are_kept(write, monkeypatch):
    """A zip of 12 KB had three million rows, which took 900 MB."""
    monkeypatch.setattr(rows, "SURPLUS_ROWS", 2)
    text = "filename,label\n" + "".join(f"{n}.png,x\n" for n in range(100))

    with pytest.raises(
        DataError, match=r"line 9: more rows than there are files \(5\)"
    ):
        load_dataset(write(text))


@pytest.mark.parametrize(
    "text",
    [
        "filename" + "," * 50 + "\n",
        'filename,"of\ntwo lines"' + "," * 49 + "\n",
        "filename,label\na.png" + "," * 50 + "\n",
        'filename,label\na.png,"' + ",x\n" * 50 + '"\n',
    ],
)
def test_a_row_of_more_cells_than_labels_is_refused_before_it_is_read(
    write, monkeypatch, text
):
    """A header of a hundred million commas fits into a few kilobytes of a zip."""
    monkeypatch.setattr(rows, "MAX_COLUMNS", 50)

    with pytest.raises(DataError, match="a row has more than 50 cells"):
        load_dataset(write(text))


def test_each_row_has_as_many_cells_as_there_may_be(write, monkeypatch):
    """What one row has does not count for the next."""
    monkeypatch.setattr(rows, "MAX_COLUMNS", 3)

    dataset = load_dataset(write("filename,label,note\na.png,x,1\nb.png,y,2\n"))

    assert dataset.label_names == ("x", "y")


def test_more_cells_than_fit_into_memory_are_refused_before_all_are_kept(
    write, monkeypatch
):
    """A column for each of many labels, and many images."""
    monkeypatch.setattr(rows, "MAX_CELLS", 8)

    with pytest.raises(DataError, match="line 4: more than 8 cells; labels in one"):
        load_dataset(write("filename,x,y\n" + "a.png,1,0\n" * 5))


def test_the_split_column_is_obeyed(write):
    """Common spellings are understood, others refused with the line."""
    rows = "a.png,x,train\nb.png,y,train\nc.png,x,val\nd.png,y,test\n"
    dataset = load_dataset(write("filename,label,split\n" + rows))
    assert {name: len(part) for name, part in dataset.parts.items()} == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }

    with pytest.raises(DataError, match="line 2: split 'tset'"):
        load_dataset(write("filename,label,split\na.png,x,tset\nb.png,y,train\n"))


def test_blanks_in_the_header_are_no_part_of_a_label(write):
    """Nor of the name of any other column."""
    text = "file, cat, dog, split\na.png, 1, 0, train\nb.png,0,1,train\n"
    dataset = load_dataset(write(text))

    assert dataset.label_names == ("cat", "dog")


def test_an_absolute_path_into_the_folder_is_as_good(write, tmp_path):
    """By whichever of its names the folder is written, and if in `images` too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "images" / "a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    table = write(f"file,label\n{tmp_path}/a.png,x\n{tmp_path}/link/b.png,y\n")

    assert load_dataset(tmp_path / "link" / table.name).train.samples.names == (
        "images/a.png",
        "b.png",
    )


@pytest.mark.parametrize("path", ["/elsewhere/a.png", "../a.png"])
def test_a_path_that_lies_elsewhere_is_said_to(write, path):
    """It may well exist."""
    with pytest.raises(DataError, match=r"line 2: .* not lie below the CSV.s folder"):
        load_dataset(write(f"file,label\n{path},x\nb.png,y\n"))


def test_a_file_behind_a_link_is_not_just_missing(write, tmp_path):
    """Links to folders are not followed, and the message says so."""
    (tmp_path / "photos").symlink_to(tmp_path)
    message = r"line 2: there is no file .photos/a.png.; links .* not followed: photos"
    with pytest.raises(DataError, match=message):
        load_dataset(write("file,label\nphotos/a.png,x\nb.png,y\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na.png,x\n", "lacks a column with the file.*it has name, label"),
        ("filename\na.png\n", "lacks a column with the labels"),
        ("filename,label\na.png,x\nz.png,y\n", r"line 3: there is no file 'z\.png'"),
        ("filename,label\na.png,x\nb.png,x\n", "at least 2 must be there"),
        ("filename,label\n", "has no rows"),
        ("filename,label,split\na.png,x,train\nb.png,y,train\nc.png,z,val\n", "'z'"),
        ("file,labels\na.png,x\nb.png,y,z\n", r"line 3: 'z' has no column.* by \|"),
        ("file,labels,,\na.png,x,\nb.png,y,z,\n", "line 3: 'z' has no column"),
        (",file,label,\n0,a.png,x,\n1,b.png,y,z\n", "line 3: 'z' has no column"),
        ('file,label,said\na.png,x,"Oh, a\nb.png,y,"B"\n', "expected after '\"'"),
        ('file,label,said\na.png,x,\nb.png,y,"Oh\nc.png,y,', "end of data"),
        (
            "file,x,y\na.png,1,0\nb.png,1\n",
            "line 3: no cell for column 'y'; the row has 2 and the header 3",
        ),
        ("file,label,label\na.png,x,y\n", "two columns of one name, 'label';"),
        ("file,cat,cat\na.png,0,1\n", "two columns of one name, 'cat';"),
        ("File,x,file\na.png,1,b.png\n", "one name, 'File' and 'file';"),
        ("file,label,split,Split\na.png,x,train,test\n", "'split' and 'Split'"),
    ],
)
def test_what_is_missing_is_named(write, text, message):
    """The message says what there is, and what is allowed."""
    with pytest.raises(DataError, match=message):
        load_dataset(write(text))


@pytest.mark.parametrize("above", ["\n", "\r\n\r\n", " ;;\n"])
def test_empty_lines_above_the_header_are_skipped(write, above):
    """Also for what separates the cells, and lines keep their numbers."""
    rows = f"{above}file;label\na.png;x\nz.png;y\n"
    line = above.count("\n") + 3

    with pytest.raises(DataError, match=f"line {line}: there is no file 'z.png'"):
        load_dataset(write(rows))


@pytest.mark.parametrize(("listed", "lies"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_is_found_however_its_accents_are_encoded(write, tmp_path, listed, lies):
    """macOS writes them otherwise; the file that is written the same comes first."""
    name = normalize(lies, "été.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    rows = f"file,label\n{normalize(listed, 'été.png')},x\nb.png,y\n"

    assert load_dataset(write(rows)).train.samples.names == (name, "b.png")

    (tmp_path / normalize(listed, "été.png")).write_bytes(encoded("red", 9))
    names = load_dataset(write(rows)).train.samples.names
    assert names == (normalize(listed, "été.png"), "b.png")


@pytest.mark.parametrize("multi_label", [None, False])
def test_one_column_of_yes_and_no_is_told_how_to_be_a_question(write, multi_label):
    """A column is a label, and one label alone tells nothing apart."""
    rows = "a.png,1\nb.png,0\n"
    table = write(f"file,broken\n{rows}")
    with pytest.raises(
        DataError, match=r'has 1 label.* column "label", and .*positive'
    ):
        load_dataset(table, multi_label=multi_label)

    dataset = as_binary(load_dataset(write(f"file,label\n{rows}")), ("1",))

    assert dataset.train.labels.tolist() == [1, 0]


def test_labels_that_look_the_same_are_refused(write):
    """They would be two, of which no one sees which is which."""
    rows = "".join(
        f"{file}.png,{normalize(form, 'thé')}\n"
        for file, form in (("a", "NFC"), ("b", "NFD"))
    )
    with pytest.raises(DataError, match=r"label 'thé' .* Unicode normalization"):
        load_dataset(write(f"file,label\n{rows}c.png,x\n"))


def test_a_csv_beside_class_folders_is_said_to_come_first(write, tmp_path):
    """It may be a list of prices, and the folders what is meant."""
    write("item,price\nlamp,20\n")
    with pytest.raises(DataError, match=r"lacks a column with the file: [^.]*$"):
        load_dataset(tmp_path)

    for label in ("red", "blue"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.png").write_bytes(encoded(label, 1))
    with pytest.raises(DataError, match=r"is read by its CSV file labels\.csv; move"):
        load_dataset(tmp_path)


def test_images_that_no_row_has_are_told_of(write, caplog):
    """The list may have been cut off, and the columns be called otherwise."""
    caplog.set_level("INFO")
    table = write("file,label,fold\na.png,x,1\nb.png,y,2\n")
    dataset = load_dataset(table)

    assert dataset.ignored == ("c.png", "d.png")
    assert caplog.messages == [
        f"{table.parent}: no row has 2 image(s), such as c.png",
        f"{table}: columns not read: fold",
    ]


@pytest.mark.parametrize(
    ("folders", "path"),
    [(("photos",), "1.png"), (("old", "new"), "old/1.png"), (("a", "b"), "a\\1.png")],
)
def test_a_mistake_in_a_csv_of_folders_is_no_reason_to_move_it(
    write, tmp_path, folders, path
):
    """The one folder has all images, or the rows say in which of them they are."""
    for folder in folders:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.png").write_bytes(encoded("red", 1))
    write(f"file,label\na.png,x\n{path},y\n")

    with pytest.raises(DataError, match=r"line 3: there is no file '[^']*'$"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("label", ["c\0at", "c\tat", '"c\nat"', "c\x1b[31mat"])
def test_a_label_has_no_control_characters(write, label):
    """A terminal would obey them; the message spells them out."""
    message = r"labels\.csv: label 'c\\[^']*at' has a control character"
    with pytest.raises(DataError, match=message):
        load_dataset(write(f"file,label\na.png,{label}\nb.png,dog\n"))


@pytest.mark.parametrize("label", ["dog\u200b", "\ufeffdog", "do\u202eg", "dog\u200d"])
def test_a_label_has_no_characters_that_cannot_be_seen(write, label):
    """It would look like another label; the message spells them out."""
    message = r"labels\.csv: label '[^']*\\u[^']*' has a character that cannot be seen"
    with pytest.raises(DataError, match=message):
        load_dataset(write(f"file,label\na.png,dog\nb.png,{label}\n"))


@pytest.mark.parametrize("label", ["خ\u200cش", "क्\u200dष", "👩\u200d🚀"])
def test_a_label_may_join_letters_as_its_script_does(write, label):
    """Without the joiner Persian and Hindi would be written wrong."""
    dataset = load_dataset(write(f"file,label\na.png,dog\nb.png,{label}\n"))

    assert dataset.label_names == ("dog", label)


@pytest.mark.parametrize("again", ["a.png", "./a.png"])
def test_a_file_has_one_row(write, again):
    """Listed twice, it could be learned and held out; two labels contradict."""
    message = r"line 4: 'a\.png' stands on line 2 already"
    with pytest.raises(DataError, match=message):
        load_dataset(write(f"file,label\na.png,x\nb.png,y\n{again},y\n"))


def test_a_row_is_named_by_its_line_in_the_file(write):
    """Blank lines and cells of several lines are counted as an editor does."""
    text = 'file,label,note\na.png,x,"in two\nlines"\n\nb.png,y,\nz.png,y,\n'
    with pytest.raises(DataError, match=r"line 6: there is no file 'z\.png'"):
        load_dataset(write(text))


def test_rows_of_blank_cells_are_no_rows(write):
    """Spreadsheets leave them where a row was emptied; others leave blanks."""
    dataset = load_dataset(write("file,cat,dog\na.png,1,0\n,,\n  \nb.png,0,1\n, ,\n"))

    assert len(dataset.train) == 2


def test_columns_that_nobody_reads_may_have_one_name(write):
    """Beside a column of the labels, all that is not known is a note."""
    dataset = load_dataset(write("file,label,note,note\na.png,x,1,2\nb.png,y,3,4\n"))

    assert dataset.label_names == ("x", "y")


def test_cells_that_are_empty_need_no_column(write):
    """Spreadsheets leave delimiters at the ends of rows, or of the header alone."""
    for text in (
        "file,label\na.png,x,\nb.png,y,,\n",
        "file,label,,\na.png,x\nb.png,y\n",
    ):
        assert load_dataset(write(text)).label_names == ("x", "y")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(write, end):
    """And quotes after a blank are quotes."""
    lines = ("file, label", 'a.png, "x"', 'b.png, "y, or z"', "")

    dataset = load_dataset(write(end.join(lines)))

    assert dataset.label_names == ("x", "y, or z")


def test_spreadsheets_write_semicolons_and_a_byte_order_mark(write):
    """Excel in half of Europe."""
    dataset = load_dataset(write("\ufefffilename;label\na.png;x\nb.png;y\n"))

    assert dataset.label_names == ("x", "y")


def test_the_voc_photos_come_with_their_labels_and_splits(data_dir):
    """As its README counts them."""
    dataset = load_dataset(data_dir / "voc2007-multilabel.tar")
    counts = sum(part.labels.sum(0, dtype=int) for part in dataset.parts.values())

    assert dict(zip(dataset.label_names, counts.tolist(), strict=True)) == {
        "bus": 229,
        "car": 989,
        "cat": 456,
        "person": 516,
        "train": 348,
    }
    sizes = [len(dataset.parts[p]) for p in ("train", "validation", "test")]
    assert sizes == [1335, 191, 381]
    assert dataset.train.labels.dtype == np.uint8
