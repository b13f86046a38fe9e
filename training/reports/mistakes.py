"""evaluation → **picture sheet** of the worst mistakes, and a list of all by file.

Wrong answers given with the highest scores come first. Half of what is found there is
usually a wrong label in the data, and who wants to mend it needs the file.
"""

import csv
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from classifier.manifest import PreprocessSpec
from training.data.dataset import Split, decode_sample
from training.evaluation.evaluate import Evaluation
from training.reports.fonts import font_for

TILE, CAPTION, COLUMNS = 160, 28, 6  # pixels, pixels, tiles a row
LETTERS, LINE = 11, 13  # pixels: size of the letters, from line to line
ANSWER, TRUTH = "#c8553d", "#1f3b57"
MOST = 24
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Mistake:
    """One wrong answer; `score` is how sure it was."""

    index: int
    truth: str
    answer: str
    score: float


def all_mistakes(evaluation: Evaluation) -> list[Mistake]:
    """Wrong answers, the surest first; for multi-label a wrong yes or no each."""
    labels = evaluation.labels
    if evaluation.thresholds is None:
        wrong = np.flatnonzero(evaluation.predicted != evaluation.truth)
        found = [
            Mistake(
                int(i),
                labels[evaluation.truth[i]],
                labels[evaluation.predicted[i]],
                float(evaluation.scores[i].max()),
            )
            for i in wrong
        ]
    else:
        found = _wrong_decisions(evaluation)
    return sorted(found, key=lambda mistake: -mistake.score)


def _wrong_decisions(evaluation: Evaluation) -> list[Mistake]:
    truth = evaluation.truth.reshape(evaluation.n, -1)
    decided = evaluation.predicted.reshape(evaluation.n, -1)
    found = []
    for i, k in np.argwhere(truth != decided):
        yes, no = evaluation.labels[k], evaluation.no(k)
        score = float(evaluation.scores[i, k])
        answer, correct = (no, yes) if truth[i, k] else (yes, no)
        sureness = 1 - score if truth[i, k] else score
        found.append(Mistake(int(i), correct, answer, sureness))
    return found


def list_mistakes(mistakes: list[Mistake], split: Split) -> bytes:
    """A CSV with the file of each. A name that is not UTF-8 stays as on the disk."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("file", "truth", "answer", "score"))
    for mistake in mistakes:
        file = split.samples.name(mistake.index)
        writer.writerow((file, mistake.truth, mistake.answer, f"{mistake.score:.6f}"))
    return table.getvalue().encode(errors="surrogateescape")


def draw_sheet(
    mistakes: list[Mistake], split: Split, spec: PreprocessSpec
) -> bytes | None:
    """A JPEG of the first, as the network sees them; None without a mistake."""
    mistakes = mistakes[:MOST]
    if not mistakes:
        return None
    columns = min(COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // columns)
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, mistake in enumerate(mistakes):
        left, top = place % columns * TILE, place // columns * (TILE + CAPTION)
        pixels = decode_sample(split.samples, mistake.index, spec)
        sheet.paste(fitted(Image.fromarray(pixels.squeeze())), (left + 2, top + 2))
        write_line(draw, (left + 4, top + TILE), mistake.answer, fill=ANSWER)
        at = (left + 4, top + TILE + LINE)
        score = f" ({mistake.score:.2f})"
        write_line(draw, at, f"is {mistake.truth}", end=score, fill=TRUTH)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def fitted(image: Image.Image) -> Image.Image:
    """As large as a tile allows; of a small image every pixel is seen."""
    side = TILE - 4
    small = max(image.size) < side
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return ImageOps.contain(image.convert("RGB"), (side, side), method)


def write_line(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    fill: str,
    end: str = "",
) -> None:
    """One line under a tile; where it is too long, the text is cut and not its end."""
    text = " ".join(text.split())
    font = font_for(text, LETTERS)
    line = text + end
    while text and font.getlength(line) > TILE - 8:
        text = text[:-1]
        line = f"{text}…{end}"
    draw.text(at, line, fill=fill, font=font)
