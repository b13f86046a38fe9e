"""`models/<name>/<version>/` ↔ **Bundle**: read with suspicion, written whole."""

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from classifier.errors import BundleError
from classifier.golden import Golden, read_golden, write_golden
from classifier.manifest import (
    FILE_NAME,
    MAX_LABELS,
    GraphVariant,
    Manifest,
    Precision,
    describe_problems,
)

MANIFEST, GOLDEN, CARD = "manifest.json", "golden.npz", "card.md"
MAX_MANIFEST_BYTES = 32 * 2**20
# A label has four, a threshold one, and all else hundreds. pydantic keeps every value
# that is wrong, and for each missing field the whole manifest again: a few KB a value.
MAX_MANIFEST_VALUES = 6 * MAX_LABELS
VALUE = re.compile(rb'"[^"]*"?|([,\[{])')  # a text, or what stands before a value

LOST_FOUND = "lost+found"  # of a volume's file system, and closed to all but root

PREFERRED = "imagenet"  # of several models, the one meant where none is named


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder whose manifest has been read and checked."""

    folder: Path
    manifest: Manifest

    def graph(self, precision: Precision) -> GraphVariant:
        """The variant of that precision.

        Raises:
            BundleError: naming those that there are.
        """
        variant = self.manifest.graph(precision)
        if variant is None:
            have = ", ".join(graph.precision for graph in self.manifest.graphs)
            raise BundleError(f"{self.folder} has no {precision} graph; it has: {have}")
        return variant

    def read_graph(self, variant: GraphVariant) -> bytes:
        """The bytes of one graph, proven to be those the manifest names.

        Raises:
            BundleError: missing or altered.
        """
        path = self._part(variant.file)
        with _reading(path):
            graph = path.read_bytes()
        found = hashlib.sha256(graph).hexdigest()
        if found != variant.sha256:
            raise BundleError(
                f"{path} has SHA-256 {found}; the manifest says {variant.sha256}"
            )
        return graph

    def graph_bytes(self, variant: GraphVariant) -> int:
        """How large a graph's file is. Raises BundleError where it is missing."""
        path = self.folder / variant.file
        with _reading(path):
            return path.stat().st_size

    def read_golden(self) -> Golden:
        """The examples to replay. Raises BundleError."""
        return read_golden(self._part(GOLDEN), self.manifest)

    def _part(self, name: str) -> Path:
        """The place of a file. Raises BundleError for a pipe, which may never end."""
        path = self.folder / name
        with _reading(path):
            if not stat.S_ISREG(path.stat().st_mode):
                raise BundleError(f"{path} is no file")
        return path


def resolve(path: Path, version: int | None = None) -> Path:
    """The bundle's folder: `path` itself, or its newest (or the given) version.

    Raises:
        BundleError: there is none, or it cannot be looked for.
    """
    with _reading(path):
        is_version = (path / MANIFEST).is_file()
    if is_version and version is None:
        return path
    if is_version:
        raise BundleError(
            f"{path} is one version; version {version} is looked for in the folder of "
            "the model, which is above it"
        )
    versions = list_versions(path)
    if not versions:
        raise BundleError(
            f"{path} is no bundle: it has neither {MANIFEST} nor a folder "
            "named by a version number with one inside"
        )
    if version is not None and version not in versions:
        raise BundleError(f"{path} has no version {version}; it has {versions}")
    return path / str(versions[-1] if version is None else version)


def list_versions(path: Path) -> list[int]:
    """Version numbers below a model's folder, oldest first. Raises BundleError."""
    numbers = taken_versions(path)
    with _reading(path):
        return [n for n in numbers if (path / str(n) / MANIFEST).is_file()]


def taken_versions(path: Path) -> list[int]:
    """Numbers that stand for names there, with a manifest inside or not, sorted.

    Raises BundleError where the folder cannot be read.
    """
    with _reading(path):
        names = [found.name for found in path.iterdir()] if path.is_dir() else []
    return sorted(int(n) for n in names if n.isdecimal() and n == str(int(n)))


def list_bundles(models: Path) -> dict[str, list[int]]:
    """Every model in a folder of bundles, by name, with its versions, oldest first.

    Raises BundleError where a folder cannot be read: its model would be missed.
    """
    with _reading(models):
        found = sorted(models.iterdir()) if models.is_dir() else []
    folders = (folder for folder in found if folder.name != LOST_FOUND)
    return {f.name: versions for f in folders if (versions := list_versions(f))}


def default_name(names: Collection[str]) -> str | None:
    """The model meant where none is named: the only one, or the preferred one."""
    if len(names) == 1:
        return next(iter(names))
    return PREFERRED if PREFERRED in names else None


def load_bundle(path: Path, version: int | None = None) -> Bundle:
    """Read and check the manifest of a bundle, or of a model's newest version.

    Raises:
        BundleError: naming the field, the file or the folder that is wrong.
    """
    folder = resolve(path, version).resolve()
    manifest = read_manifest(folder / MANIFEST)
    if (folder.parent.name, folder.name) != (manifest.name, str(manifest.version)):
        raise BundleError(
            f"{folder} holds {manifest.full_name} by its manifest; "
            "the folder must be named so"
        )
    return Bundle(folder, manifest)


def read_manifest(path: Path) -> Manifest:
    """Read `manifest.json`, strictly. Raises BundleError naming each wrong field."""
    with _reading(path):
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} has {size} bytes; at most {MAX_MANIFEST_BYTES} are allowed"
            )
        text = path.read_bytes()
    if _has_more_values(text, MAX_MANIFEST_VALUES):
        raise BundleError(
            f"{path} has more than {MAX_MANIFEST_VALUES} values, which is as many as "
            f"{MAX_LABELS} labels need"
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        problems = describe_problems(error, whole="manifest", limit=10)
        raise BundleError(f"{path}: {problems}") from error


def _has_more_values(text: bytes, most: int) -> bool:
    """Of a JSON text, without parsing it; commas within its texts are none."""
    if sum(map(text.count, (b",", b"[", b"{"))) <= most:  # nearly always
        return False
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    before = (found for found in VALUE.finditer(bare) if found[1])
    return next(islice(before, most, None), None) is not None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error}") from error


def write_bundle(
    root: Path,
    manifest: Manifest,
    *,
    graphs: Mapping[str, bytes],
    golden: Golden,
    card: str,
    extras: Mapping[str, bytes] | None = None,
) -> Path:
    """Write `<root>/<name>/<version>/` whole or not at all, and return it.

    The parts are written and flushed in a hidden folder beside it, which is then
    renamed: a reader, a kill or a full disk never meets half a bundle.

    Raises:
        BundleError: the version exists, a graph is missing or its hash differs, the
            golden examples could not be read again, an extra file is misnamed, or the
            disk refuses.
    """
    target = root / manifest.name / str(manifest.version)
    if target.exists():
        raise BundleError(f"{target} exists; a version is never overwritten")
    extras = extras or {}
    _check_parts(manifest, graphs, extras)
    files = {
        **extras,
        **graphs,
        MANIFEST: (manifest.model_dump_json(indent=1) + "\n").encode(),
        GOLDEN: write_golden(golden, manifest),
        CARD: card.encode(),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=target.parent))
        try:
            for name, content in files.items():
                _write_flushed(staging / name, content)
            staging.chmod(0o755)
            staging.rename(target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    except OSError as error:
        raise BundleError(f"cannot write {target}: {error}") from error
    return target


def _check_parts(
    manifest: Manifest, graphs: Mapping[str, bytes], extras: Iterable[str]
) -> None:
    """The graphs are those of the manifest, and the extra files disturb none."""
    for variant in manifest.graphs:
        graph = graphs.get(variant.file)
        if graph is None or hashlib.sha256(graph).hexdigest() != variant.sha256:
            raise BundleError(f"{variant.file} is missing or is not what was hashed")
    for name in extras:
        if not FILE_NAME.fullmatch(name) or name in {*graphs, MANIFEST, GOLDEN, CARD}:
            raise BundleError(f"{name!r} is no free file name in a bundle")


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
