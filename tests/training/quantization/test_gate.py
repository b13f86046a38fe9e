"""An int8 graph is served only if it was shown to answer like fp32."""

import re

import numpy as np
import pytest
from onnx import helper

from tests.training.quantization.nets import change_constant, images, net, with_tail
from training.graphs.graph import GraphError, parse, run
from training.quantization import float16
from training.quantization.gate import (
    Gated,
    Labelled,
    best_label,
    change_by_class,
    gated_int8,
    judge,
    nearest,
)


def labelled(graph: bytes) -> Labelled:
    """Images with the fp32 graph's own answers as the truth."""
    batches = images(256, seed=5)  # so that one of them is less than a point
    return Labelled("made up", batches, best_label(run(graph, batches)))


@pytest.mark.parametrize(("wrong", "passes"), [(1, True), (2, False)])
def test_one_point_may_be_lost_and_no_more(wrong, passes):
    """1 of 100 is one point."""
    truth = np.zeros(100, np.int64)
    fp32, int8 = truth.copy(), truth.copy()
    int8[:wrong] = 1

    gate = judge(fp32, int8, Labelled("x", [], truth), how="so")

    assert gate.passed is passes
    assert gate.accuracy_drop == pytest.approx(wrong / 100)


def test_a_gain_on_a_few_images_makes_no_attempt_the_nearest():
    """Three of eighteen more are right, and three decisions differ from fp32's."""
    truth = np.zeros(18, np.int64)
    fp32, gains, agrees = truth.copy(), truth.copy(), truth.copy()
    fp32[:3] = 1
    agrees[:2] = 1
    data = Labelled("x", [], truth)

    tried = [
        Gated(None, judge(fp32, int8, data, how="so"), np.zeros(2))
        for int8 in (gains, agrees)
    ]

    assert nearest(tried) is tried[1]
    assert "gained 16.67 points" in tried[0].gate.reason


@pytest.mark.parametrize(("differing", "passes"), [(3, True), (4, False)])
def test_ninety_seven_decisions_of_a_hundred_must_agree(differing, passes):
    """Counted over the unlabelled images, where nobody knows which one is right."""
    fp32 = np.zeros(101, np.int64)  # one labelled image before them
    int8 = fp32.copy()
    int8[-differing:] = 1

    gate = judge(fp32, int8, Labelled("x", [], np.zeros(1, np.int64)), how="so")

    assert gate.passed is passes
    assert gate.agreement == pytest.approx(1 - differing / 100)


def test_who_withholds_other_answers_does_not_agree():
    """The labels are the same; of a hundred images, four more are answered."""
    truth = np.zeros(100, np.int64)
    withheld = np.where(np.arange(100) < 10, -1, truth)
    fewer = np.where(np.arange(100) < 6, -1, truth)
    data = Labelled("x", [], truth)

    same = judge(truth, truth, data, how="so", answers=(withheld, withheld))
    other = judge(truth, truth, data, how="so", answers=(withheld, fewer))

    assert same.passed
    assert not other.passed
    assert (other.accuracy_drop, other.agreement) == (0, 0.96)


def test_a_graph_that_does_not_keep_what_was_asked_for_is_refused():
    """Whatever its figures: the reason has it, and the next attempt is made."""
    graph = net().SerializeToString()
    seen = []

    def unmet(fp32, int8):
        seen.append((fp32, len(int8)))
        return "finds 9 of 10 positives" if len(seen) == 1 else None

    data = labelled(graph)
    gated = gated_int8(
        graph, images(), labelled=data, unlabelled=images(64, seed=6), unmet=unmet
    )

    assert [count for _, count in seen] == [256] * 2  # of the labelled images alone
    for logits, _ in seen:
        assert np.array_equal(logits, run(graph, data.batches))
    assert gated.graph is not None
    assert re.match("in fp32: |all layers in int8, 16 copies", gated.gate.reason)
    assert "accuracy over 256 labelled images" in gated.gate.reason
    assert "agreement over 64 images" in gated.gate.reason
    refused = judge(*[np.zeros(9)] * 2, Labelled("x", [], np.zeros(9)), how="so",
                    unmet="finds 9 of 10 positives")  # fmt: skip
    assert not refused.passed
    assert "9 images 100.00 % (at least 97), " in refused.reason
    assert refused.reason.endswith("; finds 9 of 10 positives")


def test_a_graph_that_withholds_other_answers_is_refused():
    """Its labels are those of fp32; whether they are given hangs on small digits."""
    graph = net().SerializeToString()

    def answer(logits):
        return np.floor(logits[:, 0] * 1e4) % 2

    gated = gated_int8(graph, images(), labelled=labelled(graph), answer=answer)

    assert gated.graph is None
    assert gated.gate.accuracy_drop == 0
    assert gated.gate.agreement < 0.9


@pytest.mark.parametrize(
    ("shape", "counted", "surely"),
    [((1000,), "images", "98.31"), ((200, 5), "decisions", "96.89")],
)
def test_half_of_the_rare_positives_are_not_lost_in_the_negatives(
    shape, counted, surely
):
    """One point of accuracy, 99 of 100 decide the same, and ten of twenty are missed.

    Where an image has several labels, each is a decision.
    """
    truth = np.zeros(1000, np.bool_)
    truth[:20] = True
    int8 = truth.copy()
    int8[:10] = False
    truth, int8 = truth.reshape(shape), int8.reshape(shape)

    gate = judge(truth, int8, Labelled("x", [], truth), how="so")

    assert not gate.passed
    assert gate.accuracy_drop == pytest.approx(0.01)
    assert gate.agreement == pytest.approx(0.99)
    assert gate.reason == (
        f"so; accuracy over 1000 labelled {counted} lost 1.00 points, "
        f"F1 lost 33.33 (at most 1 lost), agreement over 1000 {counted} 99.00 % "
        f"(at least 97), with 95 % confidence {surely} % or more"
    )


@pytest.mark.parametrize(("wrong", "passes"), [(2, True), (3, False)])
def test_one_point_of_f1_may_be_lost_and_no_more(wrong, passes):
    """With 100 positives each false alarm costs half a point."""
    truth = np.arange(1000) < 100
    int8 = np.arange(1000) < 100 + wrong

    assert judge(truth, int8, Labelled("x", [], truth), how="so").passed is passes


@pytest.mark.parametrize(
    ("n", "scenes", "said"),
    [
        (2, None, "2 images cannot tell 97 % agreement from 22.36 %"),
        (98, None, "98 images cannot tell 97 % agreement from 96.99 %"),
        (99, None, None),
        (300, np.arange(300), None),
        (
            300,
            np.arange(300) // 30,
            "300 images in scenes, worth 10 single ones, "
            "cannot tell 97 % agreement from 74.11 %",
        ),
    ],
)
def test_a_few_images_judge_and_the_reason_says_what_they_leave_open(n, scenes, said):
    """0.97 ** 99 is under 5 %; ten scenes of 30 photos tell as much as ten photos."""
    truth = np.zeros(n, np.int64)

    gate = judge(truth, truth, Labelled("x", [], truth, scenes), how="so")

    assert gate.passed
    worth = n if scenes is None else len(np.unique(scenes))
    surely = 100 * 0.05 ** (1 / worth)
    assert f"100.00 % (at least 97), with 95 % confidence {surely:.2f} % or more" in (
        gate.reason
    )
    assert ("cannot tell" in gate.reason) is (said is not None)
    if said:
        assert gate.reason.endswith(f"; {said}: give at least 100")


def test_labels_of_one_image_that_differ_together_prove_no_agreement():
    """A hundred decisions of two images are worth no more than the two images."""
    labels, images = np.zeros((2, 50), np.bool_), np.zeros(2, np.bool_)
    data = [Labelled("x", [], truth) for truth in (labels, images)]

    gates = [judge(d.truth, d.truth, d, how="so") for d in data]

    assert all("confidence 22.36 % or more; 2 images cannot" in g.reason for g in gates)


def test_scenes_are_those_of_the_labelled_images():
    """Agreement is of others, where there are any: of each counts then."""
    truth, scenes = np.zeros(300, np.int64), np.arange(300) // 30
    data, seen = Labelled("x", [], truth, scenes), np.zeros(300 + 200, np.int64)

    gate = judge(seen, seen, data, how="so")

    surely = 100 * 0.05 ** (1 / 200)
    assert gate.reason.endswith(f"with 95 % confidence {surely:.2f} % or more")


def test_what_is_judged_is_what_is_served(monkeypatch):
    """Pixels in packs, and the weights of layers in fp32 stored in half the bytes."""
    monkeypatch.setattr(float16, "MIN_STORED_VALUES", 100)  # those of a small net
    graph = net().SerializeToString()
    refusals = iter(["not yet"])

    gated = gated_int8(
        graph,
        images(),
        labelled=labelled(graph),
        unmet=lambda *_: next(refusals, None),
    )

    made = parse(gated.graph)
    assert gated.gate.reason.startswith("in fp32: ")
    assert {"packs_shape", "outputs_shape"} <= {t.name for t in made.graph.initializer}
    assert any(t.name.endswith("_fp16") for t in made.graph.initializer)


@pytest.mark.parametrize(("others", "warnings"), [((), 1), (images(99, seed=5), 0)])
def test_too_few_images_are_told_of_once_and_before_all_attempts(
    caplog, others, warnings
):
    """Who gave them can stop and give more; unlabelled ones count where there are."""
    graph = net().SerializeToString()
    few = images(2)
    data = Labelled("made up", few, best_label(run(graph, few)))

    gated_int8(graph, images(), labelled=data, unlabelled=others)

    told = "int8: 2 images cannot tell 97 % agreement from 22.36 %: give at least 100"
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == (
        [told] * warnings
    )


def test_a_good_int8_graph_passes_and_says_what_was_measured():
    """The reason is for a person and for the card."""
    graph = net().SerializeToString()

    gated = gated_int8(graph, images(), labelled=labelled(graph))

    gate = gated.gate
    assert gated.graph is not None
    assert gate.passed
    assert gate.n == 256
    assert "all layers in int8" in gate.reason


def test_a_layer_that_int8_breaks_stays_in_fp32():
    """Weights from 1e-4 to 100 in one channel leave nothing of the small ones."""
    model = net()

    def spread(weight: np.ndarray) -> np.ndarray:
        weight[:, 1] = 300.0  # times an input that is always zero
        return weight

    def silent(values: np.ndarray) -> np.ndarray:
        values[1] = 0
        return values

    change_constant(model, "w4", spread)
    for name in ("w2", "b2", "w3", "b3"):
        change_constant(model, name, silent)
    graph = model.SerializeToString()

    gated = gated_int8(graph, images(), labelled=labelled(graph))

    assert gated.graph is not None
    assert gated.gate.reason.startswith("in fp32: ")
    weights = {t.name for t in parse(gated.graph).graph.initializer}
    assert "w4_quantized" not in weights


def test_where_nothing_helps_the_bundle_keeps_to_fp32(caplog):
    """Decisions that hang on the fourth decimal of a logit cannot survive 8 bits.

    What is told is the best attempt, not the last.
    """
    graph = net().SerializeToString()

    def decide(logits):
        return np.floor(logits[:, 0] * 1e4) % 2 == 0

    batches = images(seed=5)
    truth = Labelled("made up", batches, decide(run(graph, batches)))

    with caplog.at_level("INFO"):
        gated = gated_int8(graph, images(), labelled=truth, decide=decide)

    agreed = re.findall(r"agreement over 64 images (\S+) %.*: refused", caplog.text)
    assert f"{100 * gated.gate.agreement:.2f}" == max(agreed, key=float) != agreed[-1]
    assert gated.graph is None
    assert not gated.gate.passed
    assert "kept to fp32 after 5 attempts" in gated.gate.reason
    assert len(gated.change) == 2
    assert gated.change.min() < 0


def test_classes_that_int8_hurts_are_named():
    """A mean of zero can hide a class that is lost and one that is won."""
    truth = np.array([0, 0, 1, 1])

    change = change_by_class(
        np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1]), truth, classes=3
    )

    assert change[:2].tolist() == [-0.5, 0.5]
    assert np.isnan(change[2])


def overflowing(limit: np.ndarray) -> bytes:
    """The network with a tail that overflows above some score of each class, [K]."""
    nodes = [
        helper.make_node("Sub", ["scores", "limit"], ["above"]),
        helper.make_node("Mul", ["above", "steep"], ["exponent"]),
        helper.make_node("Exp", ["exponent"], ["huge"]),
        helper.make_node("Sub", ["huge", "huge"], ["zero"]),  # or infinity - infinity
        helper.make_node("Add", ["scores", "zero"], ["logits"]),
    ]
    constants = {"limit": limit, "steep": np.float32(1e6)}
    return with_tail(net(), nodes, constants)


def test_an_int8_graph_whose_logits_are_not_finite_is_refused(caplog):
    """However rare: a score just above all of fp32's would be no answer at all."""
    scores = run(net().SerializeToString(), [*images(), *images(256, seed=5)])
    graph = overflowing(scores.max(axis=0) + 1e-4)
    truth = labelled(graph)

    def decide(logits):
        assert np.isfinite(logits).all()  # its figures are numbers all the same
        return best_label(logits)

    with caplog.at_level("INFO"):
        gated = gated_int8(graph, images(), labelled=truth, decide=decide)

    first, *_ = (m for m in caplog.messages if "all layers in int8" in m)
    assert re.search(r"not finite numbers on \d+ of 256 images: refused", first)
    assert np.isfinite(run(gated.graph or graph, truth.batches)).all()


def test_logits_that_are_not_finite_in_fp32_are_a_graph_error():
    """There is nothing to compare with."""
    graph = overflowing(np.zeros(5, np.float32))
    truth = np.zeros(64, np.int64)

    with pytest.raises(GraphError, match="in fp32 already, logits are not finite"):
        gated_int8(graph, images(), labelled=Labelled("x", images(), truth))
