"""A folder, a zip and a tar are the same tree; hostile archives are refused."""

import gzip
import io
import os
import pickle
import shutil
import subprocess
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.powerless import powerless
from tests.training.data.pictures import encoded, write_tree
from training.data import archives, bounds
from training.data import tree as tree_module
from training.data.archives import ZipTree
from training.data.source import load_dataset
from training.data.tree import name_of, open_tree
from training.errors import DataError


def packed(folder: Path, archive: Path) -> Path:
    """The folder as a zip or tar, by the archive's suffix."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            for path in sorted(folder.rglob("*")):
                target.write(path, path.relative_to(folder))
    else:
        mode = "w:gz" if archive.suffix == ".gz" else "w"
        with tarfile.open(archive, mode) as target:
            target.add(folder, ".")
    return archive


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_reads_like_the_folder_it_was_made_of(tmp_path, name):
    """Names, folders and bytes agree, so a reader needs to know one kind only."""
    folder = write_tree(tmp_path / "data", {"red": 2, "green": 1})
    unpacked, archive = open_tree(folder), open_tree(packed(folder, tmp_path / name))

    assert archive.names == unpacked.names == ("green/0.png", "red/0.png", "red/1.png")
    assert archive.folders == unpacked.folders == {"red", "green"}
    assert all(archive.read(n) == unpacked.read(n) for n in unpacked.names)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_file_that_is_packed_twice_is_there_once(tmp_path, suffix):
    """As it was packed last. Listed twice, it could be learned and held out."""
    archive, name = tmp_path / f"a{suffix}", "red/0.png"
    first, last = encoded("red", 0), encoded("red", 1, side=30)
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            target.writestr(name, first)
            with pytest.warns(UserWarning, match="Duplicate name"):
                target.writestr(name, last)
    else:
        with tarfile.open(archive, "w:gz" if suffix == ".tar.gz" else "w") as target:
            for content in (first, last):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                target.addfile(member, io.BytesIO(content))

    tree = open_tree(archive)

    assert tree.names == (name,)
    assert tree.read(name) == last
    assert tree.size(name) == len(last) != len(first)


def test_a_lone_outer_folder_is_stepped_into(tmp_path):
    """Archives often hold one folder with everything in it."""
    write_tree(tmp_path / "outer" / "flowers", {"red": 1, "blue": 1})

    assert open_tree(tmp_path / "outer").names == ("blue/0.png", "red/0.png")


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("pets", ("labels.csv", "0.png")),  # no folder below it
        ("cifar-10-batches-py", ("data_batch_1", "batches.meta")),
        ("images", ("red/0.png", "blue/0.png")),
    ],
)
def test_a_lone_folder_that_is_no_class_is_stepped_into(tmp_path, folder, names):
    """A class has images, and nothing that would say what they are."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        for name in names:
            target.writestr(f"{folder}/{name}", b"x")

    assert open_tree(tmp_path / "a.zip").names == tuple(sorted(names))


def test_a_lone_class_stays_one(tmp_path):
    """With the notes that lie beside its images."""
    write_tree(tmp_path / "outer", {"red": 1})
    (tmp_path / "outer" / "red" / "notes.txt").write_text("Whose are they?")

    assert open_tree(tmp_path / "outer").names == ("red/0.png", "red/notes.txt")


def zip_of(archive: Path, raw: bytes, content: bytes = b"x", *, system: int) -> Path:
    """A zip of one member whose name is these bytes, of no encoding that it tells."""
    member = zipfile.ZipInfo("@" * len(raw))
    member.create_system = system
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(member, content)
    written = archive.read_bytes().replace(b"@" * len(raw), raw)
    archive.write_bytes(written)
    return archive


UNIX, WINDOWS = 3, 0


@pytest.mark.parametrize(
    ("raw", "system", "name"),
    [
        ("Bär/é.png".encode(), UNIX, "Bär/é.png"),  # as `zip -r` does
        (b"B@r/0.png".replace(b"@", b"a"), UNIX, "Bar/0.png"),
        (b"./red/0.png", UNIX, "red/0.png"),
        (b"red\\0.png", WINDOWS, "red/0.png"),
        (b"red\\0.png", UNIX, "red\\0.png"),  # one name, of a file
        ("é.png".encode("cp437"), WINDOWS, "é.png"),  # as the specification says
        ("red/表.png".encode("cp932"), WINDOWS, "red/ò\\.png"),  # of one folder
    ],
)
def test_a_name_in_a_zip_is_that_of_the_file(tmp_path, raw, system, name):
    """Whatever program wrote it; labels would be mojibake, down to the answers."""
    tree = ZipTree(zip_of(tmp_path / "a.zip", raw, b"bytes", system=system))

    assert tree.names == (name,)
    assert tree.read(name) == b"bytes"
    there = pickle.loads(pickle.dumps(tree))  # noqa: S301  our own
    assert there.read(name) == b"bytes"


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "shift-jis"])
def test_a_folder_in_a_zip_in_an_unknown_encoding_is_refused(tmp_path, encoding):
    """It could be a label; which letters it has nobody can tell."""
    label = {"shift-jis": "熊"}.get(encoding, "Bär")
    raw = f"{label}/0.png".encode(encoding)

    with pytest.raises(DataError, match="encoding that the archive does not tell"):
        ZipTree(zip_of(tmp_path / "a.zip", raw, system=WINDOWS))


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_member_that_leads_out_is_refused_by_name(tmp_path, name, suffix):
    """Nothing is unpacked, yet a name that lies about its place is an attack."""
    archive = tmp_path / f"slip{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            target.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w") as target:
            member = tarfile.TarInfo(name)
            member.size = 1
            target.addfile(member, io.BytesIO(b"x"))

    with pytest.raises(DataError, match=r"evil\.png.* leads out of the archive"):
        open_tree(archive)


def test_a_link_in_a_tar_is_refused(tmp_path):
    """It could point at any file of the machine."""
    archive = tmp_path / "link.tar"
    with tarfile.open(archive, "w") as target:
        member = tarfile.TarInfo("red/0.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        target.addfile(member)

    with pytest.raises(DataError, match=r"red/0\.png is a link"):
        open_tree(archive)


def test_an_archive_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """The directory of the zip already says how large it will become."""
    monkeypatch.setattr(bounds, "MAX_UNPACKED_BYTES", 1 << 20)
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("red/0.png", bytes(8 << 20))

    with pytest.raises(DataError, match="claims to unpack to 8388608 bytes"):
        open_tree(archive)


def compressed(archive: Path, *members: tuple[str, bytes, int]) -> Path:
    """A compressed tar of members: name, kind and a size, all of it zeros."""
    content = b""
    for name, kind, size in members:
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, size
        content += member.tobuf(tarfile.GNU_FORMAT)
        content += bytes(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    archive.write_bytes(gzip.compress(content + bytes(2 * tarfile.BLOCKSIZE)))
    return archive


@pytest.mark.parametrize(
    "members",
    [
        [("a/0.png", tarfile.REGTYPE, 9), ("__MACOSX/0", tarfile.REGTYPE, 4 << 20)],
        [("././@LongLink", tarfile.GNUTYPE_LONGNAME, 4 << 20)],
        [("a", tarfile.DIRTYPE, 0)] * 4_000,
    ],
    ids=["what is left out", "a name", "folders"],
)
def test_a_compressed_tar_may_not_grow_without_bounds(tmp_path, monkeypatch, members):
    """What is no file of the data set is unpacked, too, and a name held in memory."""
    archive = compressed(tmp_path / "bomb.tar.gz", *members)
    open_tree(compressed(tmp_path / "fine.tar.gz", ("a/0.png", tarfile.REGTYPE, 9)))
    monkeypatch.setattr(bounds, "MAX_UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(bounds, "MAX_RATIO", 10)

    with pytest.raises(DataError, match="claims to unpack to"):
        open_tree(archive)


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.REGTYPE])
def test_of_a_member_of_a_tar_little_more_than_its_name_is_kept(tmp_path, kind):
    """A hundred take 500 bytes of a compressed archive, and there may be millions."""
    count = 1_000
    members = [(f"a/{n}.png", kind, 0) for n in range(count)]
    archive = compressed(
        tmp_path / "many.tar.gz", *members, ("0.png", tarfile.REGTYPE, 0)
    )
    tree = open_tree(archive)  # what is imported for the first one is none of it
    peaks = []
    for _ in range(3):  # other threads may need memory at the same time, once
        tracemalloc.start()
        open_tree(archive)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert len(tree.names) + len(tree.folders) >= count
    assert min(peaks) < 400 * count


def test_a_name_in_a_tar_is_not_read_beyond_the_bound_of_a_file(tmp_path, monkeypatch):
    """tarfile reads it in one piece."""
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1_000)
    name = ("././@LongLink", tarfile.GNUTYPE_LONGNAME, 2_000)

    with pytest.raises(DataError, match="has a header of 2048 bytes"):
        open_tree(compressed(tmp_path / "bomb.tar.gz", name))


@pytest.mark.parametrize("name", ["a/" * 65 + "0.png", "a" * 4_093 + ".png"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_name_of_many_folders_is_refused(tmp_path, name, suffix):
    """Each of them becomes a name: 64 KB of one name took 240 MB."""
    archive = tmp_path / f"deep{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as target:
            target.writestr(name, b"")
    else:
        with tarfile.open(archive, "w") as target:
            target.addfile(tarfile.TarInfo(name))

    with pytest.raises(DataError, match="at most 4096 and 64 are accepted"):
        open_tree(archive)


def test_folders_on_disk_are_no_deeper_than_in_an_archive(tmp_path):
    """A thousand of them were beyond Python's stack."""
    inside = tmp_path.joinpath("data", *["a"] * 66)
    inside.mkdir(parents=True)
    (inside / "0.png").write_bytes(b"")

    with pytest.raises(DataError, match="lies 65 folders deep; at most 4096 and 64"):
        open_tree(tmp_path / "data")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_not_of_bzip2_or_lzma(tmp_path, method):
    """zipfile bounds neither: 1 KB of bzip2 took 3 GB, whatever was asked for."""
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as target:
        target.writestr("red/0.png", b"")

    with pytest.raises(DataError, match=f"is compressed by method {method}; only 0"):
        open_tree(archive)


def test_a_member_is_read_only_up_to_the_bound(tmp_path, monkeypatch):
    """Whatever a header claims, no single file fills the memory."""
    archive = tmp_path / "large.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("red/0.png", bytes(2000))
    monkeypatch.setattr(tree_module, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(bounds, "MAX_FILE_BYTES", 1000)

    with pytest.raises(DataError, match=r"red/0\.png in .* is larger"):
        open_tree(archive).read("red/0.png")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive at all"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    """By content, whatever the name says."""
    path = tmp_path / "data.zip"
    path.write_bytes(content)

    with pytest.raises(DataError):
        open_tree(path)


@pytest.mark.parametrize("name", ["photos", "labels.csv"])
def test_data_that_may_not_be_looked_at_is_named(volume, name):
    """It is in the folder of somebody else."""
    (volume / "theirs").mkdir(mode=0)
    path = volume / "theirs" / name

    with powerless(), pytest.raises(DataError, match=str(path)):
        load_dataset(path)


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
def test_a_file_with_holes_in_a_tar_has_all_its_zeros(tmp_path):
    """A plain tar leaves them out: read by offset, it gave bytes of the next files."""
    folder = tmp_path / "holes"
    folder.mkdir()
    for name in ("a.bmp", "b.bmp"):
        with (folder / name).open("wb") as file:
            file.write(name.encode())
            file.seek(1 << 20)
            file.write(b"the end")
    archive = tmp_path / "holes.tar"
    subprocess.run(["tar", "-C", folder, "-cSf", archive, "."], check=True)
    assert archive.stat().st_size < 1 << 20  # there are holes

    tree = open_tree(archive)

    assert all(tree.read(n) == (folder / n).read_bytes() for n in tree.names)
    assert [tree.size(n) for n in tree.names] == [(1 << 20) + 7] * 2


def test_what_is_no_file_is_not_read(tmp_path):
    """Nobody may ever write into a pipe, and a device may never end."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    tree = open_tree(tmp_path)

    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DataError, match=f"{name} is a pipe, a device or a folder"):
            tree.read(name)


def test_a_cut_off_tar_names_the_file_that_is_missing_bytes(tmp_path):
    """The index can be whole while the last picture is not."""
    folder = write_tree(tmp_path / "data", {"red": 1, "blue": 1})
    archive = packed(folder, tmp_path / "a.tar")
    tree = open_tree(archive)
    archive.write_bytes(archive.read_bytes()[:600])

    with pytest.raises(DataError, match="cut off inside"):
        tree.read(tree.names[-1])


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_tar_whose_next_header_is_damaged_does_not_end_there(tmp_path, suffix):
    """tarfile takes it for the end: half of the images would be missing unsaid."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as target:
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(f"red/{name}")
            member.size = 1000
            target.addfile(member, io.BytesIO(bytes(member.size)))
    damaged = bytearray(content.getvalue())
    second = 512 + 1024  # a header, and a content that fills two blocks
    assert damaged[second : second + 9] == b"red/b.png"
    damaged[second + 150] ^= 0xFF  # in its checksum
    archive = tmp_path / f"a{suffix}"
    whole = gzip.compress(damaged) if suffix == ".tar.gz" else bytes(damaged)
    archive.write_bytes(whole)

    with pytest.raises(DataError, match="at byte 1536, where the header of file 2"):
        open_tree(archive)


@pytest.mark.parametrize(
    ("whole", "rest"),
    [(40, b""), (600_000, b"\x07")],  # cut off in a header; a block of no type
)
def test_a_damaged_compressed_tar_is_named(tmp_path, whole, rest):
    """The decompressor has errors of its own, which tarfile lets pass."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as target:
        member = tarfile.TarInfo("red/0.png")
        member.size = 1 << 20
        target.addfile(member, io.BytesIO(bytes(member.size)))
    packer = zlib.compressobj(wbits=31)  # gzip
    start = packer.compress(content.getvalue()[:whole])
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(start + packer.flush(zlib.Z_FULL_FLUSH) + rest)

    with pytest.raises(DataError, match=r"cannot read .*a\.tar\.gz"):
        open_tree(archive)


def test_a_zip_travels_to_another_process(tmp_path):
    """Worker processes get the tree pickled, and open the archive for themselves."""
    folder = write_tree(tmp_path / "data", {"red": 1, "blue": 1})
    tree = ZipTree(packed(folder, tmp_path / "a.zip"))

    there = pickle.loads(pickle.dumps(tree))  # noqa: S301 - our own object

    assert there.read("red/0.png") == tree.read("red/0.png")


def test_what_file_managers_leave_behind_is_not_data(tmp_path):
    """Thumbs.db and dot files are in nearly every folder that people send."""
    folder = write_tree(tmp_path, {"red": 1, "blue": 1})
    (folder / "red" / "Thumbs.db").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")

    assert open_tree(folder).names == ("blue/0.png", "red/0.png")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_folders_that_are_left_behind_are_not_data_either(tmp_path, name):
    """A Mac packs `__MACOSX` beside the data, and Jupyter looks into every folder."""
    folder = write_tree(tmp_path / "data" / "flowers", {"red": 1, "blue": 1})
    (folder / "red" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "data" / "__MACOSX" / "flowers").mkdir(parents=True)
    (tmp_path / "data" / "__MACOSX" / "flowers" / "._red").write_bytes(b"x")

    tree = open_tree(packed(tmp_path / "data", tmp_path / name))

    assert tree.names == ("blue/0.png", "red/0.png")
    assert tree.folders == {"red", "blue"}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    """Here its path is too long; without the right to list it, it would be left out."""
    write_tree(tmp_path / "data", {"red": 2, "blue": 2})
    at = os.open(tmp_path / "data" / "red", os.O_RDONLY)
    # 4,090 characters below the data set, which are too many with those before it; each
    # is reached from the one above, as no path may be so long
    for length in [*[250] * 16, 70]:
        os.mkdir("x" * length, dir_fd=at)
        below = os.open("x" * length, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)

    with pytest.raises(DataError, match=r"cannot read .*/red/x+.*: File name too long"):
        open_tree(tmp_path / "data")


def test_a_data_set_that_is_not_there_is_answered_by_where_to_get_it(tmp_path):
    """A newcomer's first error: no config of the checkout comes with its data."""
    with pytest.raises(DataError, match=r"mnist does not exist; docs/data\.md says wh"):
        open_tree(tmp_path / "mnist")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (".", "flowers"),
        ("red/..", "flowers"),
        ("../flowers", "flowers"),
        ("shop.v2", "shop.v2"),
        ("shop.zip", "shop"),
        ("shop.TAR", "shop"),
        ("shop.v2.tar.gz", "shop.v2"),
        ("caf\udce9.zip", "caf?"),  # a byte that is no UTF-8, nor could be in JSON
    ],
)
def test_a_data_set_has_the_name_of_its_folder_or_archive(
    tmp_path, monkeypatch, path, name
):
    """Cards and records tell it, also of a folder that is named by a dot."""
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path / "flowers")

    assert name_of(Path(path)) == name
