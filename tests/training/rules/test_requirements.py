"""What was asked for is told, with what the validation images grant of it."""

import numpy as np
import pytest

from classifier.manifest import Task
from training.configs.task_sections import BundleConfig
from training.data.scenes import Scenes
from training.evaluation.metrics import Truth
from training.rules.requirements import requirement_lines, unmet
from training.rules.rules import ABSTAINED, answers, decisions, fit_rules


def told(
    logits: np.ndarray,
    truth: Truth,
    task: Task,
    config: BundleConfig,
    scenes: Scenes | None = None,
) -> tuple[list[str], float | None]:
    """The lines, and the abstain threshold."""
    labels = max(2, logits.shape[1])
    rules = fit_rules(logits, truth, task, config, labels=labels, scenes=scenes)
    lines = requirement_lines(logits, truth, task, config, rules, scenes=scenes)
    return lines, rules.abstain_threshold


def multiclass(images: int) -> tuple[np.ndarray, Truth]:
    """Logits float32 [N, 3] of which each tenth is wrong, and the least sure."""
    truth = np.arange(images) % 3
    logits = np.eye(3, dtype=np.float32)[truth] * np.linspace(2, 6, images)[:, None]
    wrong = slice(0, images // 10)
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    return logits.astype(np.float32), truth


def test_a_risk_that_is_granted_has_its_figures():
    """How many images are answered, and what the bound says of them."""
    lines, threshold = told(*multiclass(1000), Task.MULTICLASS, BundleConfig(risk=0.02))

    assert threshold is not None
    assert len(lines) == 1
    assert lines[0].startswith("Asked for: at most 0.02 of the answers wrong. Granted")
    assert f"from a score of {threshold:.3f} on" in lines[0]
    assert "of 1000 validation images 900 are answered, 0 of them wrong" in lines[0]


def test_a_risk_that_few_images_cannot_grant_is_told_of():
    """Without a threshold nothing else would say that it was asked for."""
    lines, threshold = told(*multiclass(18), Task.FINE_GRAINED, BundleConfig(risk=0.1))

    assert threshold is None
    assert lines == [
        "Asked for: at most 0.1 of the answers wrong. Not reached with 18 validation "
        "images: every image is answered"
    ]


def test_a_risk_is_bounded_by_scenes_where_they_are_known():
    """A thousand images of 200 scenes promise less, those of 20 nothing."""
    logits, truth = multiclass(1000)
    images = np.arange(1000)
    config = BundleConfig(risk=0.02)

    alone, _ = told(logits, truth, Task.MULTICLASS, config)
    many, threshold = told(logits, truth, Task.MULTICLASS, config, images // 5)
    few, none = told(logits, truth, Task.MULTICLASS, config, images // 50)

    assert threshold is not None
    assert "1000 validation images 900 are answered" in alone[0]
    assert "the risk is at most 0.0033 with a confidence of 95 %" in alone[0]
    assert "1000 validation images of 200 scenes 900 are answered" in many[0]
    assert "at most 0.0165 with a confidence of 95 %, a scene counted" in many[0]
    assert many[0].endswith(
        "as one image, if large scenes are no harder than small ones"
    )
    assert none is None
    assert few == [
        "Asked for: at most 0.02 of the answers wrong. Not reached with 1000 "
        "validation images of 20 scenes, a scene counted as one image: every image is "
        "answered"
    ]


@pytest.mark.parametrize(
    ("wish", "line"),
    [
        (
            {"recall": 0.75},
            "Asked for: a recall of 0.75. Granted on validation: 3 of 4 positives "
            "are found; false positives: 1 of 4 negatives",
        ),
        (
            {"false_negative_cost": 10.0},
            "Asked for: the least cost, 1 for a false positive and 10 for a false "
            "negative. On 8 validation images: 2 false positives, 0 false negatives",
        ),
    ],
)
def test_a_detector_tells_of_recall_or_costs(wish: dict[str, float], line: str):
    """With what the chosen threshold does on validation."""
    logits = np.array([-4, -3, -2, -1, 1, 2, 3, 4], np.float32)[:, None]
    truth = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)

    lines, _ = told(logits, truth, Task.BINARY, BundleConfig(**wish))

    assert lines == [line]


def test_a_wish_of_another_task_is_told_to_be_left_out():
    """A detector made of a multi-class run has that run's requirements."""
    logits, truth = np.array([[-1], [1]], np.float32), np.array([False, True])

    lines, _ = told(logits, truth, Task.BINARY, BundleConfig(risk=0.1))

    assert lines == [
        "Asked for: risk = 0.1. Left out: it is for multiclass and fine-grained "
        "bundles, and this one is binary"
    ]


def test_a_smaller_graph_keeps_the_recall_that_was_granted():
    """Fp32 misses two positives of a hundred; a third may be, a fourth may not."""
    truth = np.arange(2000) < 100
    logits = np.where(truth, 4, -4).astype(np.float32)[:, None]
    logits[98:100] = -9
    config = BundleConfig(recall=0.98)
    rules = fit_rules(logits, truth, Task.BINARY, config, labels=2)

    told = []
    for found in (98, 97, 96, 90):
        smaller = logits.copy()
        smaller[found:98] = -9
        told.append(unmet(logits, smaller, truth, Task.BINARY, config, rules))

    assert told == [
        None,
        None,
        "finds 96 of 100 positives in place of 98 (asked: 0.98; at most 1 fewer)",
        "finds 90 of 100 positives in place of 98 (asked: 0.98; at most 1 fewer)",
    ]


def test_the_noise_of_rounding_is_no_loss_of_recall():
    """The threshold leaves fp32 at the limit, where noise takes an image as often as
    it brings one."""
    truth = np.arange(2500) < 500
    config = BundleConfig(recall=0.98)
    fewer = refused = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        logits = random.normal(np.where(truth, 3, -3), 1.5).astype(np.float32)[:, None]
        rules = fit_rules(logits, truth, Task.BINARY, config, labels=2)
        noise = random.normal(0, 0.05, logits.shape).astype(np.float32)
        found = [
            int((decisions(some, rules) & truth).sum())
            for some in (logits, logits + noise)
        ]
        told = unmet(logits, logits + noise, truth, Task.BINARY, config, rules)
        fewer += found[1] < found[0]
        refused += told is not None

    assert fewer > 5
    assert refused == 0


def test_a_smaller_graph_may_exceed_a_risk_by_a_point_at_most():
    """Of little risk that would be several times as much: there it is half of it."""
    truth = np.zeros(3000, int)
    logits = np.tile(np.array([4, 0, 0], np.float32), (3000, 1))

    def wrong(images: int) -> np.ndarray:
        some = logits.copy()
        some[:images] = 0, 4, 0
        return some

    told = []
    for risk, images in ((0.05, 155), (0.05, 165), (0.004, 9), (0.004, 14)):
        config = BundleConfig(risk=risk)
        rules = fit_rules(logits, truth, Task.MULTICLASS, config, labels=3)
        smaller = wrong(images)
        told.append(unmet(logits, smaller, truth, Task.MULTICLASS, config, rules))

    assert [line is None for line in told] == [True, False, True, False]
    assert told[1] is not None
    assert told[1].endswith("(asked: 0.05; up to 0.06 is let through)")


def test_a_smaller_graph_makes_no_dearer_mistakes():
    """All wrong cost 1900 + 100 * 10: one percent of it is two misses, not three."""
    truth = np.arange(2000) < 100
    logits = np.where(truth, 4, -4).astype(np.float32)[:, None]
    config = BundleConfig(false_negative_cost=10.0)
    rules = fit_rules(logits, truth, Task.BINARY, config, labels=2)

    told = []
    for missed in (2, 3):
        smaller = logits.copy()
        smaller[:missed] = -9
        told.append(unmet(logits, smaller, truth, Task.BINARY, config, rules))

    assert told == [
        None,
        "mistakes cost 30 in place of 0 (at most 1 % of 2900 more)",
    ]


def test_a_smaller_graph_keeps_the_risk_that_was_granted():
    """Surer of everything it would answer what fp32 withholds, and be wrong."""
    logits, truth = multiclass(1000)
    config = BundleConfig(risk=0.02)
    rules = fit_rules(logits, truth, Task.MULTICLASS, config, labels=3)
    surer = 2 * logits

    same = unmet(logits, logits, truth, Task.MULTICLASS, config, rules)
    more = unmet(logits, surer, truth, Task.MULTICLASS, config, rules)

    assert same is None
    assert more is not None
    assert more.startswith("the risk is at most 0.1")
    assert (decisions(logits, rules) == decisions(surer, rules)).all()
    withheld = [answers(some, rules) == ABSTAINED for some in (logits, surer)]
    assert [w.sum() for w in withheld] == [100, 0]


def test_who_asks_for_nothing_is_told_nothing():
    """Costs of one each are no wish: they are the plain threshold."""
    lines, _ = told(*multiclass(18), Task.MULTICLASS, BundleConfig())

    assert lines == []
