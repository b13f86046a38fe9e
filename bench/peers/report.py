"""standings → **table and plot**, with the ratios that the goals speak of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers.comparison import Standing
from bench.rounds import describe

LIMIT = "in-process limit"
OURS = "Linnaeus"


def rows(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    """JSON-ready, fastest first, failures last."""
    listed = [
        {
            "name": s.name,
            "setting": s.setting,
            "precision": s.precision,
            "arrangement": s.arrangement,
            "requests_per_s": s.median("requests_per_s"),
            "p50_ms": s.median("p50_ms") if s.name != LIMIT else None,
            "p99_ms": s.median("p99_ms") if s.name != LIMIT else None,
            "failed": s.median("failed") if s.name != LIMIT else None,
            "cores": s.median("cores") if s.name != LIMIT else None,
            "memory_mb": s.median("memory_mb") if s.name != LIMIT else None,
            "rounds": s.rounds,
            "failure": s.failure,
        }
        for s in standings
    ]
    return sorted(listed, key=lambda row: -(row["requests_per_s"] or 0.0))


def markdown(workload: str, listed: Sequence[dict[str, Any]]) -> str:
    """The table as it stands in the docs; a ratio with the spread of its rounds."""
    lines = [
        f"### {workload}",
        "",
        "| server | setting | requests/s | of the limit | ours is x | p50 ms | p99 ms "
        "| failed | cores | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    own = find(listed, OURS, "fp32")
    for row in listed:
        best = find(listed, LIMIT, row["precision"])
        cells = [
            row["name"],
            row["setting"],
            _number(row["requests_per_s"], 1),
            describe(ratios(row, best), ".2f"),
            describe(ratios(own, row), ".2f"),
            _number(row["p50_ms"], 1),
            _number(row["p99_ms"], 1),
            _number(row["failed"], 0),
            _number(row["cores"], 1),
            _number(row["memory_mb"], 0),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    failures = [
        f"- {r['name']}, {r['setting']}: failed" for r in listed if r["failure"]
    ]
    return "\n".join([*lines, "", *failures])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def ratios(
    row: dict[str, Any] | None,
    to: dict[str, Any] | None,
    key: str = "requests_per_s",
) -> list[float]:
    """One row's figure over another's in each round, where both were measured."""
    if row is None or to is None:
        return []
    # One that failed on the way has fewer rounds.
    pairs = zip(row["rounds"], to["rounds"], strict=False)
    return [ours[key] / theirs[key] for ours, theirs in pairs if theirs[key]]


def find(
    listed: Sequence[dict[str, Any]], name: str, setting: str
) -> dict[str, Any] | None:
    """One row, where it was measured."""
    for row in listed:
        if (row["name"], row["setting"]) == (name, setting) and row["requests_per_s"]:
            return row
    return None


def plot(workload: str, listed: Sequence[dict[str, Any]], path: Path) -> None:
    """Bars of throughput, ours in color, the limit dashed. Needs matplotlib."""
    import matplotlib as mpl  # noqa: PLC0415  only the extra `train` brings it

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  after the backend is chosen

    shown = [r for r in listed if r["requests_per_s"] and r["name"] != LIMIT]
    names = [f"{row['name']}\n{row['setting']}" for row in shown]
    rates = [row["requests_per_s"] for row in shown]
    colors = ["#1b7837" if row["name"] == OURS else "#9e9ac8" for row in shown]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1.2))
    bars = axes.barh(names[::-1], rates[::-1], color=colors[::-1])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    for row in listed:
        if row["name"] == LIMIT:
            axes.axvline(row["requests_per_s"], color="black", ls="--", lw=1)
            label = f" limit {row['setting']}"
            axes.text(row["requests_per_s"], -0.9, label, fontsize=7)
    axes.set_xlabel("requests a second (median of rounds)")
    axes.set_title(workload)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
