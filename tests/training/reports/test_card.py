"""A card says what was measured, and leaves empty what could not be."""

import html
import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt  # comes with rich

from classifier.manifest import Manifest, Precision, Task
from tests.synthetic import manifest_fields
from tests.training.evaluation.scored import answers_of
from training.evaluation.answers import per_class
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import per_label
from training.reports.card import CAPTIONS, CardFacts, write_card

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


@pytest.mark.parametrize("temperature", [19.999, 3.0, 0.05])
def test_a_temperature_at_its_bound_is_explained(temperature: float):
    """The number alone looks as good as any other."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    fields["postprocess"]["temperature"] = temperature

    card = card_of(fields)

    assert ("said next to nothing of the truth" in card) is (temperature > 19)
    assert ("logits are much too small" in card) is (temperature < 1)


GATE = {
    "passed": True,
    "dataset": "colors",
    "n": 9,
    "accuracy_drop": 0.0,
    "agreement": 1.0,
    "reason": "agrees in all",
}


def with_int8(fields: dict[str, Any]) -> Manifest:
    """The manifest with a second graph, which has passed its gate."""
    (fp32,) = fields["graphs"]
    int8 = fp32 | {"precision": "int8", "file": "model.int8.onnx", "gate": GATE}
    graphs = {"graphs": [fp32, int8]}
    return Manifest.model_validate_json(json.dumps(fields | graphs))


def test_what_a_smaller_graph_changes_stands_beside_fp32():
    """Intervals are those of fp32; a class may gain recall that another one loses."""
    truth = np.array([0, 1, 1])
    fp32 = measured(np.eye(3)[[0, 1, 0]], truth, accuracy=2 / 3)
    int8 = measured(np.eye(3)[[1, 1, 1]], truth, accuracy=0.75)
    evaluations = {
        Precision.FP32: replace(fp32, intervals={"accuracy": (0.25, 0.875)}),
        Precision.INT8: replace(int8, intervals={"accuracy": (0.5, 1.0)}),
    }
    manifest = with_int8(manifest_fields("colors", Task.MULTICLASS))

    lines = write_card(CardFacts(manifest, evaluations, (), ())).splitlines()

    assert "| figure | fp32 | int8 | 95 % interval (fp32) |" in lines
    assert "| accuracy | 0.6667 | 0.7500 | 0.2500 to 0.8750 |" in lines
    assert "Gate of int8: agrees in all." in lines
    head = "| label | images | precision | recall | F1 | int8 recall, change |"
    assert lines[lines.index(head) + 2 :][:3] == [
        "| red | 1 | 0.500 | 1.000 | 0.667 | -1.000 |",
        "| green | 2 | 1.000 | 0.500 | 0.667 | +0.500 |",
        "| blue | 0 |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    ("task", "groups", "said"),
    [
        (Task.MULTICLASS, (None, None, None), ""),
        (Task.FINE_GRAINED, ("warm", "cold", "cold"), ""),
        (Task.FINE_GRAINED, ("warm", "warm", "cold"), " (same group)"),
    ],
)
def test_mistakes_between_two_classes_are_told_both_ways(task, groups, said):
    """Of four images of either class two are green and called red, one the reverse."""
    fields = manifest_fields("colors", task)
    for label, name, group in zip(fields["labels"], NAMES, groups, strict=True):
        label |= {"name": name, "group": group}
    manifest = Manifest.model_validate_json(json.dumps(fields))
    scores, truth = np.eye(3)[[0, 0, 1, 1]], np.array([1, 1, 0, 1])

    card = write_card(
        CardFacts(manifest, {Precision.FP32: measured(scores, truth)}, (), ())
    )

    line = (
        f"- `red` and `green`{said}: 1 called `green`, 2 called `red`; 75.0 % of both"
    )
    assert line in card.splitlines()


def test_a_yes_has_its_threshold_and_no_class_to_be_mixed_up_with():
    """Each label of several its average precision, too."""
    scores = np.array([[0.95, 0.2, 0.1], [0.1, 0.8, 0.3], [0.2, 0.4, 0.92]])
    truth = np.array([[True, True, False], [False, False, False], [False, False, True]])
    thresholds = (0.9, 0.9, 0.9)
    found = replace(
        measured(np.eye(3), np.arange(3)),
        rows=per_label(scores, truth, thresholds),
        truth=truth,
        scores=scores,
        thresholds=thresholds,
    )
    evaluations = {Precision.FP32: found, Precision.INT8: found}
    manifest = with_int8(manifest_fields("colors", Task.MULTILABEL))

    card = write_card(CardFacts(manifest, evaluations, (), ()))

    assert "Thresholds: `red` 0.900, `green` 0.900, `blue` 0.900.\n" in card
    assert (
        "| label | images | precision | recall | F1 | average precision | "
        "int8 recall, change |\n"
    ) in card
    assert "| red | 1 | 1.000 | 1.000 | 1.000 | 1.000 | +0.000 |\n" in card
    assert "| green | 1 |  | 0.000 | 0.000 | 0.333 | +0.000 |\n" in card
    assert "mixed up" not in card


def test_a_detector_has_the_threshold_of_its_yes():
    """And a model that may abstain says from where on it answers."""
    fields = manifest_fields("colors", Task.MULTICLASS)
    fields["postprocess"]["abstain_threshold"] = 0.625

    assert "Thresholds: `red` 0.900.\n" in card_of(manifest_fields("r", Task.BINARY))
    assert "Gives no answer under a score of 0.625.\n" in card_of(fields)
    assert "Gives no answer" not in card_of(manifest_fields("c", Task.MULTICLASS))


def test_a_card_ends_with_where_the_bundle_comes_from():
    """After its pictures: training, each optimization, and what was remarked."""
    fields = manifest_fields("colors", Task.MULTICLASS, version=3)
    made = {"command": "linnaeus optimize a_*", "commit": None, "hardware": "a laptop"}
    made |= {"version": 2, "created": "2026-02-01T00:00:00Z", "versions": {}}
    origin = {"command": "train `x`", "license": "CC0", "source": "[photos](there)"}
    origin |= {"seconds": 12.6, "optimizations": [made | {"data_sha256": {}}]}
    fields["provenance"] |= origin
    manifest = Manifest.model_validate_json(json.dumps(fields))
    found = measured(np.eye(3), np.arange(3))

    card = write_card(
        CardFacts(
            manifest, {Precision.FP32: found}, ("As it was.",), tuple(sorted(CAPTIONS))
        )
    )

    pictures = re.findall(r"!\[(.*)\]\((.*)\)", card)
    assert pictures == [(CAPTIONS[name], name) for name in sorted(CAPTIONS)]
    assert card.split("## Where it comes from\n\n")[1].splitlines() == [
        "- Made by: `` train `x` ``",
        "- Data: [photos](there)",
        "- Licence: CC0",
        "- Hardware: any; 13 s of training",
        "- Commit: none; created 2026-01-01T00:00:00Z",
        "- Optimized from version 2, by `linnaeus optimize a_*`; commit none; "
        "a laptop; 2026-02-01T00:00:00Z",
        "- As it was.",
    ]
