"""fp16: half the bytes, and how much that costs is known."""

import numpy as np
import pytest

from tests.training.quantization.nets import (
    HUGE,
    VANISHING,
    change_constant,
    images,
    net,
    scaled,
)
from training.graphs.graph import GraphError, parse, run, serialize
from training.quantization import float16
from training.quantization.float16 import (
    MAX_ACTIVATION,
    halve_weights,
    largest_activation,
    store_weights_as_float16,
    to_float16,
)
from training.quantization.quantize import simplify
from training.quantization.ranges import watch


@pytest.fixture(scope="module")
def wide() -> bytes:
    """A net whose head is big enough to be stored."""
    return net(classes=100).SerializeToString()


def test_stored_weights_are_half_as_large_and_cost_what_is_reported(wide):
    """The graph still computes in fp32: only the Cast is new."""
    stored = store_weights_as_float16(wide, images())

    error = np.abs(run(stored.graph, images()) - run(wide, images())).max()
    kinds = {t.name: t.data_type for t in parse(stored.graph).graph.initializer}
    assert kinds["w5_fp16"] == 10  # float16
    assert kinds["b5"] == 1  # small ones are not worth a node
    assert stored.max_logit_error == pytest.approx(float(error))
    assert 0 < stored.max_logit_error < 0.01
    assert len(wide) - len(stored.graph) > 100 * 48 * 2 - 200


def test_weights_beyond_fp16_stay_as_they_are(wide):
    """65504 is the end of fp16; infinity is no weight."""
    model = parse(wide)
    change_constant(model, "w5", lambda old: old * 1e6)

    stored = store_weights_as_float16(model.SerializeToString(), images())

    assert "w5_fp16" not in {t.name for t in parse(stored.graph).graph.initializer}


@pytest.mark.parametrize(("factors", "by"), [(VANISHING, ""), ({"b5": np.nan}, "nan")])
def test_a_loss_that_could_change_an_answer_is_refused(wide, factors, by):
    """Weights of 1e-9 vanish in fp16; of answers that are no numbers nothing is known.

    Features as large as the weights are small show it.
    """
    graph = scaled(parse(wide), factors)

    with pytest.raises(GraphError, match=f"moves a logit by {by}"):
        store_weights_as_float16(graph, images())


@pytest.mark.parametrize(("factors", "looked_at"), [({}, 8), (HUGE, 1)])
def test_what_fp16_could_not_hold_is_seen_between_the_layers(factors, looked_at):
    """A narrow layer of huge values, which the next one makes small again.

    No batch is run after it: a look takes several times as long as a run.
    """
    graph, batches = scaled(net(), factors), iter(images())
    plain = run(net().SerializeToString(), images())

    largest = largest_activation(graph, batches)

    values = [
        np.abs(of).max()
        for seen in watch(simplify(graph), ["a", "c2", "c3"], images()[:looked_at])
        for of in seen.values()
    ]
    # the pixels are 255 before they are normalized
    assert largest == pytest.approx(max(255, *values), rel=1e-3)
    assert (largest <= MAX_ACTIVATION) is (not factors)
    assert len(list(batches)) == len(images()) - looked_at
    assert np.allclose(run(graph, images()), plain, atol=1e-3)
    assert np.isfinite(run(to_float16(graph), images())).all()  # a CPU does not see it


def test_activations_keep_half_of_what_fp16_holds_to_images_to_come():
    """A peak of 40,000 would fit in, and is too near."""
    model = simplify(net().SerializeToString())
    (seen,) = watch(model, ["a", "c2", "c3"], [np.concatenate(images())])
    factor = 40_000 / max(float(np.abs(values).max()) for values in seen.values())

    graph = scaled(net(), {"w2": factor, "b2": factor, "b3": factor, "w4": 1 / factor})

    assert MAX_ACTIVATION < largest_activation(graph, images()) < 41_000


def test_vectors_keep_their_precision():
    """They are biases, and the scales of int8."""
    model = net(classes=2000)
    change_constant(model, "w5", lambda old: old * 1e6)  # beyond fp16

    halved = halve_weights(model.SerializeToString())

    assert halved == serialize(model)


def test_half_precision_arithmetic_keeps_the_contract(wide):
    """uint8 in, float32 out, fp16 between; the same bytes each time."""
    half = to_float16(wide)

    logits = run(half, images())
    assert logits.dtype == np.float32
    assert np.abs(logits - run(wide, images())).max() < 0.05
    kinds = {t.data_type for t in parse(half).graph.initializer}
    assert 10 in kinds
    assert half == to_float16(wide)
    assert float16.MIN_STORED_VALUES > 1


def test_a_graph_that_answers_no_numbers_has_lost_all(monkeypatch):
    """NaN is under no bound, and over none either."""
    monkeypatch.setattr(float16, "moved_by", lambda *_: (float("nan"), 5.0))

    assert float16.lost_in_float16(b"", b"", []) is not None
