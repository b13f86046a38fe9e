"""A card says what was measured, and leaves empty what could not be."""

import html
import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt  # comes with rich

from classifier.manifest import Manifest, Precision, Task
from tests.synthetic import manifest_fields
from tests.training.evaluation.scored import answers_of
from training.evaluation.answers import per_class
from training.evaluation.evaluate import Evaluation
from training.reports.card import CardFacts, write_card

NAMES = ("red", "green", "blue")


def measured(
    scores: np.ndarray,
    truth: np.ndarray,
    *,
    labels: tuple[str, ...] = NAMES,
    **metrics: float,
) -> Evaluation:
    """An evaluation of red, green and blue, or of three others."""
    return Evaluation(
        dataset="colors",
        split="test",
        labels=labels,
        metrics=metrics,
        intervals={},
        rows=per_class(answers_of(scores, truth)),
        truth=truth,
        scores=scores,
        thresholds=None,
        names=[],
    )


def test_what_is_undefined_is_an_empty_cell():
    """No image is blue and none was called so; int8 has no figure called risk."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    manifest = Manifest.model_validate_json(json.dumps(fields))
    scores, truth = np.eye(3)[[0, 1, 0]], np.array([0, 1, 1])
    evaluations = {
        Precision.FP32: measured(scores, truth, accuracy=2 / 3, risk=0.25),
        Precision.INT8: measured(scores, truth, accuracy=2 / 3),
    }

    card = write_card(CardFacts(manifest, evaluations, (), ()))

    assert "| accuracy | 0.6667 | 0.6667 |  |" in card
    assert "| risk | 0.2500 |  |  |" in card
    assert "| green | 2 | 1.000 | 0.500 | 0.667 | +0.000 |" in card
    assert "| blue | 0 |  |  |  |  |" in card


@pytest.mark.parametrize(
    "name",
    [
        "tea|coffee",
        "<b>train</b>",
        "bus, red",
        "`code` ``",
        "[link](http://x)",
        "*a* _b_ ~~c~~",
        "&lt;",
        r"a\|b",
        "snake_case",
    ],
)
def test_a_label_is_shown_as_it_is_written(name: str):
    """Nothing in it is Markdown or HTML, and in a list it is seen where it ends."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    fields["labels"][0]["name"] = name
    manifest = Manifest.model_validate_json(json.dumps(fields))
    scores, truth = np.eye(3)[[0, 1, 0]], np.array([0, 1, 1])
    found = measured(scores, truth, labels=(name, "green", "blue"), accuracy=1.0)

    card = write_card(CardFacts(manifest, {Precision.FP32: found}, (), ()))
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(card)

    cells = re.findall("<tr>\n<td>(.*?)</td>\n<td.*?>1</td>", page)
    assert [html.unescape(cell) for cell in cells] == [name]
    code = [html.unescape(c) for c in re.findall("<code>(.*?)</code>", page)]
    assert code[:3] == [name, "green", "blue"]
    assert "<b>" not in page
