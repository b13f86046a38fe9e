"""`log.csv` → **curves.png**: loss and scores over the epochs."""

from pathlib import Path

from training.files import whole
from training.loop.log import read_log


def draw_curves(log: Path, picture: Path) -> None:
    """Draw losses on the left and validation scores on the right.

    Nothing is drawn without an epoch: a run that fits a probe alone has none.
    """
    rows = read_log(log)
    if not rows:
        return
    import matplotlib  # noqa: PLC0415 - slow to load, and only needed here

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, (losses, scores) = pyplot.subplots(1, 2, figsize=(10, 4))
    columns = dict.fromkeys(key for row in rows for key in row)
    for key in columns:
        if key.endswith("loss"):
            axes = losses
        elif key.startswith("validation_"):
            axes = scores
        else:
            continue
        points = [(row["epoch"], row[key]) for row in rows if key in row]
        # dots, or a single epoch would be no line at all
        axes.plot(*zip(*points, strict=True), ".-", label=key.replace("_", " "))
    for axes in (losses, scores):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.tight_layout()
    with whole(picture) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)
