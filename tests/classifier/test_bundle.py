"""A bundle is read with suspicion and written whole, or not at all."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from classifier.bundle import (
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_VALUES,
    list_bundles,
    list_versions,
    load_bundle,
    read_manifest,
    resolve,
    write_bundle,
)
from classifier.classifier import Classifier
from classifier.errors import BundleError
from classifier.manifest import MAX_LABELS, Manifest, Precision
from tests.classifier.processes import python
from tests.powerless import powerless
from tests.synthetic import golden_pixels, make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A valid bundle, to be spoiled."""
    return make_bundle(tmp_path)


def rewrite(folder: Path, **changes: object) -> None:
    """Change top-level fields of a manifest on disk."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def parts(folder: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and graphs of a bundle on disk."""
    loaded = load_bundle(folder)
    graphs = {g.file: loaded.read_graph(g) for g in loaded.manifest.graphs}
    return loaded.manifest, graphs


def test_a_model_is_its_newest_version(tmp_path):
    """By number: 10 comes after 9, and what is no number is no version."""
    for version in (9, 10, 1):
        make_bundle(tmp_path, version=version)
    for other in ("latest", "007", ".writing-x", "11"):
        (tmp_path / "colors" / other).mkdir()
    for other in ("latest", "007"):
        shutil.copy(tmp_path / "colors/9/manifest.json", tmp_path / "colors" / other)

    assert list_versions(tmp_path / "colors") == [1, 9, 10]
    assert load_bundle(tmp_path / "colors").manifest.version == 10
    assert load_bundle(tmp_path / "colors", 9).manifest.version == 9
    assert load_bundle(tmp_path / "colors" / "1").manifest.version == 1


def test_what_is_no_bundle_is_refused_by_name(tmp_path, bundle):
    """Each message says what was looked for, and where."""
    with pytest.raises(BundleError, match="missing is no bundle: it has neither"):
        resolve(tmp_path / "missing")
    with pytest.raises(BundleError, match=r"card.md is no bundle"):
        resolve(bundle / "card.md")
    for version in (2, 0):
        with pytest.raises(BundleError, match=rf"no version {version}; it has \[1\]"):
            resolve(bundle.parent, version)


def test_a_bundle_stands_in_a_folder_of_its_own_name(bundle):
    """A copied folder would answer under another name than its manifest says."""
    renamed = bundle.rename(bundle.parent / "2")
    with pytest.raises(BundleError, match="holds colors/1 by its manifest"):
        load_bundle(renamed)

    renamed.rename(bundle)
    animals = bundle.parent.rename(bundle.parent.parent / "animals")
    with pytest.raises(BundleError, match="must be named so"):
        load_bundle(animals / "1")


def test_a_bundle_is_found_by_a_link_and_from_within(bundle, monkeypatch):
    """Its own name counts, not that of the way to it."""
    link = bundle.parent.parent / "current"
    link.symlink_to(bundle, target_is_directory=True)
    monkeypatch.chdir(bundle)

    assert load_bundle(link).folder == load_bundle(Path()).folder == bundle


def test_a_version_has_no_versions_of_its_own(bundle):
    """Else another version than the one asked for would be loaded, and no one told."""
    with pytest.raises(BundleError, match="is one version; version 2 is looked for"):
        load_bundle(bundle, 2)


def test_a_folder_without_a_bundle_is_no_model(tmp_path, bundle):
    """Nor is a file, or a model whose only version was begun and not finished."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("our models")
    (tmp_path / "begun" / "1").mkdir(parents=True)

    assert list_bundles(tmp_path) == {"colors": [1]}


def test_a_folder_that_cannot_be_read_is_named(volume):
    """It was mounted for another user than the one that serves."""
    bundle = make_bundle(volume)
    model = bundle.parent
    model.chmod(0)

    for look, path in (
        (list_bundles, volume),
        (list_versions, model),
        (load_bundle, model),
        (load_bundle, bundle),
    ):
        with powerless(), pytest.raises(BundleError, match=str(model)):
            look(path)


def test_what_a_volume_has_lost_and_found_is_no_model(volume):
    """ext4 makes that folder at the root of a volume, for root alone."""
    (volume / "lost+found").mkdir(mode=0)

    with powerless():
        assert list_bundles(volume) == {}


def test_a_path_that_cannot_be_one_is_a_bundle_error(tmp_path):
    """Its name is longer than any file's."""
    with pytest.raises(BundleError, match="File name too long"):
        load_bundle(tmp_path / ("a" * 1000))


def test_an_altered_graph_is_refused_with_both_hashes(bundle):
    """One bit is enough."""
    graph = bytearray((bundle / "model.onnx").read_bytes())
    wanted = hashlib.sha256(graph).hexdigest()
    graph[len(graph) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(graph)
    found = hashlib.sha256(graph).hexdigest()

    with pytest.raises(BundleError, match=f"{found}; the manifest says {wanted}"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_missing_part_is_named(bundle, name):
    """It was deleted, or never copied."""
    (bundle / name).unlink()

    with pytest.raises(BundleError, match=f"cannot read .*{name}"):
        Classifier.load(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_pipe_in_the_place_of_a_part_is_no_file(bundle, name):
    """Reading it would wait for a writer, for ever."""
    (bundle / name).unlink()
    os.mkfifo(bundle / name)

    with pytest.raises(BundleError, match=f"{name} is no file"):
        Classifier.load(bundle)


def test_a_manifest_error_names_file_and_field(bundle):
    """Someone has to find it."""
    rewrite(bundle, task="guessing", surprise=1)

    with pytest.raises(BundleError, match=r"manifest.json: task: .*; surprise: Extra"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"]
)
def test_a_manifest_that_is_no_json_object_is_refused(bundle, content):
    """Whatever it is instead."""
    (bundle / "manifest.json").write_bytes(content)

    with pytest.raises(BundleError, match=r"manifest\.json: manifest: "):
        load_bundle(bundle)


def test_a_label_that_would_steer_a_terminal_is_named_when_its_bundle_is_loaded(bundle):
    """Bundles were once written with any text."""
    path = bundle / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["labels"][1]["name"] = "\x1b[31mgreen"
    path.write_text(json.dumps(fields))

    message = r"manifest\.json: labels\.1\.name: .*'\\x1b\[31mgreen' has a control char"
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle)


def test_a_manifest_of_gigabytes_is_not_read(tmp_path):
    """A sparse file costs its sender nothing."""
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)

    with pytest.raises(BundleError, match="at most 33554432 are allowed"):
        read_manifest(path)


@pytest.mark.parametrize("item", [b"0,", b"{},", b"[[]],"])
def test_a_manifest_of_countless_values_is_refused_before_it_is_parsed(tmp_path, item):
    """Of 3 MB in which every label is wrong pydantic made 4 GB of errors."""
    path = tmp_path / "manifest.json"
    path.write_bytes(b'{"labels": [' + item * MAX_MANIFEST_VALUES + b"0]}")

    with pytest.raises(BundleError, match="more than 600000 values"):
        read_manifest(path)


def test_commas_and_brackets_within_texts_are_no_values(bundle):
    """Names of labels have them, and quotes before them."""
    path = bundle / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["provenance"]["source"] = '\\",[{' * MAX_MANIFEST_VALUES
    path.write_text(json.dumps(fields))

    assert read_manifest(path).provenance.source == fields["provenance"]["source"]


def test_a_manifest_of_as_many_labels_as_there_may_be_is_read(bundle):
    """Each with a threshold."""
    path = bundle / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields["task"] = "multilabel"
    fields["labels"] = [
        {"id": f"{n}", "name": f'"{n}", or [{n}]', "group": None}
        for n in range(MAX_LABELS)
    ]
    fields["postprocess"] |= {
        "activation": "sigmoid",
        "thresholds": [0.5] * MAX_LABELS,
        "abstain_threshold": None,
    }
    path.write_text(json.dumps(fields))

    assert len(read_manifest(path).labels) == MAX_LABELS


def test_a_precision_that_is_not_there_is_refused(bundle):
    """Naming those that are."""
    with pytest.raises(BundleError, match="has no int8 graph; it has: fp32"):
        load_bundle(bundle).graph(Precision.INT8)


def test_what_was_written_is_what_is_read(tmp_path, bundle):
    """Graphs, examples, card and files of one's own, readable by others."""
    manifest, graphs = parts(bundle)
    golden = load_bundle(bundle).read_golden()

    written = write_bundle(
        tmp_path / "copy",
        manifest,
        graphs=graphs,
        golden=golden,
        card="# Card",
        extras={"labels.txt": b"red"},
    )

    again = load_bundle(written)
    assert written == tmp_path / "copy" / "colors" / "1"
    assert again.manifest == manifest
    assert again.read_graph(manifest.graphs[0]) == graphs["model.onnx"]
    assert (again.read_golden().pixels == golden_pixels(8)).all()
    assert (written / "labels.txt").read_bytes() == b"red"
    assert written.stat().st_mode & 0o777 == 0o755


def test_a_version_is_never_overwritten(tmp_path, bundle):
    """Who has its number has those weights."""
    before = (bundle / "golden.npz").read_bytes()

    with pytest.raises(BundleError, match="never overwritten"):
        make_bundle(tmp_path, classes=2)

    assert (bundle / "golden.npz").read_bytes() == before


def test_a_graph_that_was_not_hashed_is_not_written(tmp_path, bundle):
    """Nor is a bundle without one."""
    manifest, _ = parts(bundle)
    golden = load_bundle(bundle).read_golden()

    for graphs in ({}, {"model.onnx": b"other"}, {"other.onnx": b""}):
        with pytest.raises(BundleError, match=r"model\.onnx is missing or is not"):
            write_bundle(
                tmp_path / "new", manifest, graphs=graphs, golden=golden, card=""
            )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "/escaped",
        "a/b",
        ".hidden",
        "",
        "manifest.json",
        "golden.npz",
        "card.md",
    ],
)
def test_an_extra_file_stays_inside_and_replaces_nothing(tmp_path, bundle, name):
    """A name is a name, not a path."""
    manifest, graphs = parts(bundle)
    golden = load_bundle(bundle).read_golden()

    with pytest.raises(BundleError, match="file name"):
        write_bundle(
            tmp_path / "new",
            manifest,
            graphs=graphs,
            golden=golden,
            card="",
            extras={name: b"x"},
        )
    assert not (tmp_path / "new").exists()


WRITE = """
import resource, signal, sys
from pathlib import Path
from classifier.bundle import load_bundle, write_bundle
from classifier.errors import BundleError

source, root, end = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
bundle = load_bundle(source)
graphs = {g.file: bundle.read_graph(g) for g in bundle.manifest.graphs}
golden = bundle.read_golden()
if end == "killed":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
# The first file fits, the graph does not: the kernel stops the write half-way.
resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
try:
    write_bundle(root, bundle.manifest, graphs=graphs, golden=golden, card="",
                 extras={"first": b"fits"})
except BundleError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_is_full_half_way_leaves_nothing(tmp_path, bundle):
    """The writer hears of it, and cleans up."""
    root = tmp_path / "new"

    result = python(WRITE, bundle, root, "full", check=False)

    assert result.returncode == 1
    assert "cannot write" in result.stderr
    assert list((root / "colors").iterdir()) == []


def test_a_writer_that_is_killed_half_way_leaves_no_visible_bundle(tmp_path, bundle):
    """What it leaves is hidden, is no version, and is in nobody's way."""
    root = tmp_path / "new"

    result = python(WRITE, bundle, root, "killed", check=False)

    assert result.returncode == -signal.SIGXFSZ
    [left] = (root / "colors").iterdir()
    assert left.name.startswith(".writing-")
    assert (left / "first").read_bytes() == b"fits"
    assert not (left / "manifest.json").exists()
    assert list_versions(root / "colors") == []
    assert make_bundle(root).is_dir()
