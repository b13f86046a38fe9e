"""A card says what was measured, and leaves empty what could not be."""

import html
import json
import re
from collections import Counter
from typing import Any

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


def card_of(fields: dict[str, Any]) -> str:
    """The card of a manifest, of which nothing interesting was measured."""
    manifest = Manifest.model_validate_json(json.dumps(fields))
    count = len(manifest.labels)
    found = measured(
        np.eye(count)[:2],
        np.array([0, 1]),
        labels=tuple(label.name for label in manifest.labels),
        accuracy=1.0,
    )
    return write_card(CardFacts(manifest, {Precision.FP32: found}, (), ()))


def test_groups_are_listed_with_their_sizes():
    """Who reads only the group of an answer wants to know which there are."""
    fields = manifest_fields("shades", Task.FINE_GRAINED, classes=6)
    groups = Counter(label["group"] for label in fields["labels"])

    card = card_of(fields)

    told = ", ".join(f"`{group}` ({size})" for group, size in groups.items())
    assert f"Groups, with the number of their labels: {told}." in card
    assert "Groups" not in card_of(manifest_fields("colors", Task.MULTICLASS))


@pytest.mark.parametrize(("classes", "more"), [(50, ""), (53, " and 3 more")])
def test_labels_that_are_left_out_are_counted(classes: int, more: str):
    """Fifty are listed."""
    fields = manifest_fields("colors", Task.MULTICLASS, classes=classes)

    card = card_of(fields)

    last = fields["labels"][49]["name"]
    assert f", `{last}`{more}.\n" in card


@pytest.mark.parametrize(("temperature", "told"), [(19.999, True), (3.0, False)])
def test_a_temperature_at_its_bound_is_explained(temperature: float, told: bool):
    """The number alone looks as good as any other."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    fields["postprocess"]["temperature"] = temperature

    assert ("said next to nothing of the truth" in card_of(fields)) is told
