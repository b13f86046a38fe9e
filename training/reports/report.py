"""run or bundle → **one HTML page** that needs no other file and no network."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

from classifier.bundle import CARD, MANIFEST, Bundle, list_versions, load_bundle
from classifier.manifest import Manifest
from classifier.texts import as_utf8
from training.errors import DataError
from training.files import ours, write_whole
from training.loop.log import short
from training.reports.card import CAPTIONS
from training.reports.tables import (
    class_tables,
    evaluation_table,
    log_table,
    transfer_table,
)
from training.reports.typeset import typeset

TEMPLATE = "report.html"
KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
LOG, EVALUATION, TRANSFER = "log.csv", "evaluation.json", "transfer.json"
FINAL = "final.pt"
FIGURES = {"curves.png": "Loss and validation score over the training.", **CAPTIONS}


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    caption: str
    url: str  # data:…


def write_report(path: Path, target: Path) -> None:
    """Write the page about `path`, a run's, an evaluation's or a bundle's folder.

    Raises:
        DataError: there is nothing to report on.
        DiskError: the page cannot be written.
    """
    write_whole(target, as_utf8(render(path)))


def default_page(path: Path) -> Path:
    """A page that is of nothing else.

    A bundle's folder holds what its manifest names and no more, so its page is
    beside the runs, named by what the manifest says: `models/dog/1` ends in "1".
    """
    if not is_bundle(path):
        return path / "report.html"
    manifest = load_bundle(path).manifest
    return Path("runs") / f"report-{manifest.name}-{manifest.version}.html"


def is_bundle(path: Path) -> bool:
    """Whether it is a bundle's folder, of one version or of all of them.

    Raises:
        BundleError, DataError: it cannot be looked into.
    """
    if list_versions(path):
        return True
    with ours(path):
        return (path / MANIFEST).is_file()


def render(path: Path) -> str:
    """The page as text. All that comes from files is escaped."""
    facts = bundle_facts(path) if is_bundle(path) else run_facts(path)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["written"] = written
    environment.filters["numeric"] = numeric
    return environment.get_template(TEMPLATE).render(**facts)


def bundle_facts(path: Path) -> dict[str, Any]:
    """What the page says of a bundle."""
    bundle = load_bundle(path)
    manifest = bundle.manifest
    return {
        "title": f"{manifest.name}, version {manifest.version}",
        "lead": manifest.description,
        "tables": [labels_table(manifest), *graph_tables(manifest)],
        "pictures": pictures(bundle.folder),
        "details": {"Where it comes from": provenance(manifest)},
        "card": typeset(card_of(bundle)),
    }


def card_of(bundle: Bundle) -> str:
    """It has what the manifest has not: intervals, and rows of classes."""
    card = bundle.folder / CARD
    with ours(card):
        return card.read_text(encoding="utf-8") if card.is_file() else ""


def provenance(manifest: Manifest) -> dict[str, Any]:
    """Plain values; seconds to the digits that are read."""
    facts = manifest.provenance.model_dump(mode="json")
    return facts | {"seconds": short(facts["seconds"])}


def labels_table(manifest: Manifest) -> dict[str, Any]:
    """Labels with their groups and thresholds."""
    rules = manifest.postprocess
    shown = manifest.labels[-len(rules.thresholds) :] if rules.thresholds else ()
    threshold = {
        label.id: f"{each:.3f}"
        for label, each in zip(shown, rules.thresholds or (), strict=True)
    }
    rows = [
        [label.name, label.group or "", threshold.get(label.id, "")]
        for label in manifest.labels
    ]
    return {
        "title": f"Labels ({manifest.task})",
        "head": ["label", "group", "threshold"],
        "rows": rows,
    }


def graph_tables(manifest: Manifest) -> list[dict[str, Any]]:
    """A table of figures for each data set that the graphs were measured on."""
    measured = {
        (m.dataset, m.split, m.n) for graph in manifest.graphs for m in graph.metrics
    }
    tables = []
    for dataset, split, n in sorted(measured):
        columns = {
            str(graph.precision): m.values
            for graph in manifest.graphs
            for m in graph.metrics
            if (m.dataset, m.split, m.n) == (dataset, split, n)
        }
        names = sorted({name for values in columns.values() for name in values})
        rows = [
            [name, *(f"{v[name]:.4f}" if name in v else "" for v in columns.values())]
            for name in names
        ]
        title = f"Measured on {n} images ({dataset}, {split})"
        tables.append({"title": title, "head": ["figure", *columns], "rows": rows})
    gates = [
        [
            str(graph.precision),
            "passed" if graph.gate.passed else "failed",
            graph.gate.reason,
        ]
        for graph in manifest.graphs
        if graph.gate is not None
    ]
    if gates:
        head = ["graph", "gate", "why"]
        tables.append({"title": "Gates of smaller graphs", "head": head, "rows": gates})
    return tables


def run_facts(path: Path) -> dict[str, Any]:
    """What the page says of a run or of an evaluation.

    Raises:
        DataError: the folder holds neither, or a file that only has its name.
        CheckpointError: what the run has left is damaged, or not that of its end.
    """
    tables, details = [], {}
    if (path / TRANSFER).is_file():
        with ours(path / TRANSFER):
            tables.append(transfer_table(read_json(path / TRANSFER)))
    if (path / EVALUATION).is_file():
        found = read_json(path / EVALUATION)
        with ours(path / EVALUATION):
            tables += [evaluation_table(found), *class_tables(found)]
        kept = ("bundle", "precision", "command", "commit", "machine", "measured")
        details["How it was measured"] = {key: found.get(key) for key in kept}
    if (path / LOG).is_file():
        with ours(path / LOG):
            tables.append(log_table(path / LOG))
    if (path / FINAL).is_file():
        details |= training_details(path / FINAL)
    if not tables:
        raise DataError(
            f"{path} is neither a run ({LOG} or {TRANSFER}), an evaluation "
            f"({EVALUATION}) nor a bundle ({MANIFEST})"
        )
    return {
        "title": path.resolve().name,
        "lead": "",
        "tables": tables,
        "pictures": pictures(path),
        "details": details,
    }


def training_details(path: Path) -> dict[str, Any]:
    """Circumstances and config of a finished training; older runs kept less of it."""
    from training.loop.checkpoint import read_finished  # noqa: PLC0415 - torch is slow

    saved = read_finished(path)
    kept = ("command", "config_file", "commit", "gpu", "machine", "python", "versions")
    facts = {key: saved[key] for key in (*kept, "measured") if key in saved}
    facts |= {key: short(saved[key]) for key in ("epochs", "seconds")}
    facts["precision"] = saved["precision"]
    facts |= {"images": saved["sizes"]} if "sizes" in saved else {}
    facts["validation"] = {k: short(v) for k, v in saved["scores"].items()}
    return {"How it was trained": facts, "Its config": saved["config"]}


def numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers alone, and are read by their digits' places."""
    return [
        all(map(is_number, filter(None, cells))) for cells in zip(*rows, strict=True)
    ]


def is_number(cell: str) -> bool:
    """Whether a cell is one, without a word or unit."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def written(value: Any) -> str:
    """Plain values on one line, without what is not set."""
    if isinstance(value, dict):
        said = {k: v for k, v in value.items() if v not in (None, [], {}, "")}
        return ", ".join(f"{key} = {written(each)}" for key, each in said.items())
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "; ".join(map(written, value))
    if value is None or value == []:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises DataError naming the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object")
    return found


def pictures(folder: Path) -> list[Picture]:
    """The known plots of a folder, as data URLs."""
    return [
        Picture(caption, data_url(folder / name))
        for name, caption in FIGURES.items()
        if (folder / name).is_file()
    ]


def data_url(path: Path) -> str:
    """The file inside a URL."""
    with ours(path):
        content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{KINDS[path.suffix]};base64,{content}"
