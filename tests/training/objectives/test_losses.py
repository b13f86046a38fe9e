"""Losses: their formulas, by hand, and which way they push."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.objectives.losses import (
    adjusted,
    asymmetric,
    binary_cross_entropy,
    cross_entropy,
)

THIRD = math.log(0.2 / 0.8)  # the logit of a score of 0.2
ASL = {"gamma_positive": 1.0, "gamma_negative": 2.0, "clip": 0.05}


def slope(loss, logit: float, truth: float) -> float:
    """d loss / d logit of a single answer."""
    logits = torch.tensor([[logit]], requires_grad=True)
    loss(logits, torch.tensor([[truth]])).backward()
    return logits.grad.item()


def test_smoothing_keeps_a_sure_answer_from_being_free():
    """The more of it, the dearer."""
    logits, truth = torch.tensor([[9.0, -9.0]]), torch.tensor([0])

    assert cross_entropy(label_smoothing=0.1)(logits, truth) > 0.5
    assert (
        binary_cross_entropy(label_smoothing=0.1)(logits, torch.tensor([[1, 0]])) > 0.4
    )


def test_smoothing_moves_its_share_of_the_truth_to_all_labels():
    """A tenth, in equal parts, the right one among them: 0.1 / 4 of each other."""
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5]])
    softened = torch.tensor([[0.025, 0.925, 0.025, 0.025]])

    found = cross_entropy(label_smoothing=0.1)(logits, torch.tensor([1]))

    assert found.item() == pytest.approx(-(softened * logits.log_softmax(1)).sum())


@pytest.mark.parametrize(("truth", "softened"), [(1.0, 0.95), (0.0, 0.05), (0.5, 0.5)])
@pytest.mark.parametrize("kind", ["cross-entropy", "asymmetric"])
def test_smoothing_moves_yes_and_no_towards_one_half(truth, softened, kind):
    """Half of it ends up at the other side, as if they were two labels."""

    def loss(smoothing: float):
        if kind == "cross-entropy":
            return binary_cross_entropy(label_smoothing=smoothing)
        return asymmetric(**ASL, label_smoothing=smoothing)

    logits = torch.tensor([[THIRD]])

    found = loss(0.1)(logits, torch.tensor([[truth]])).item()

    assert found == pytest.approx(loss(0.0)(logits, torch.tensor([[softened]])).item())


def test_the_asymmetric_loss_is_that_of_the_paper():
    """At a score of 0.2: 0.8 · log 0.2 if it is there, else 0.15² · log 0.85."""
    logits = torch.tensor([[THIRD, THIRD]])

    found = asymmetric(**ASL)(logits, torch.tensor([[1.0, 0.0]]))

    there, absent = 0.8 * math.log(0.2), 0.15**2 * math.log(0.85)
    assert found.item() == pytest.approx(-(there + absent) / 2, rel=1e-5)


def test_an_easy_negative_costs_and_teaches_nothing():
    """Scores under the clip are as good as 0."""
    easy = math.log(0.04 / 0.96)

    assert asymmetric(**ASL)(torch.tensor([[easy]]), torch.zeros(1, 1)).item() == 0
    assert slope(asymmetric(**ASL), easy, 0.0) == 0


@given(logit=st.floats(-30, 30), truth=st.sampled_from([0.0, 1.0]))
def test_with_gammas_and_clip_at_zero_it_is_the_cross_entropy(logit, truth):
    """For every answer, however sure."""
    plain = asymmetric(gamma_positive=0, gamma_negative=0, clip=0)
    answer, wanted = torch.tensor([[logit]]), torch.tensor([[truth]])

    expected = binary_cross_entropy()(answer, wanted).item()
    assert plain(answer, wanted).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(
    logit=st.floats(-200, 200),
    truth=st.sampled_from([0.0, 1.0]),
    gamma=st.sampled_from([0.0, 1.0, 4.0]),
    clip=st.sampled_from([0.0, 0.05]),
)
def test_the_asymmetric_loss_pushes_towards_the_truth_or_not_at_all(
    logit, truth, gamma, clip
):
    """And is finite for logits that no network should have.

    The paper's own exception: with gamma 4 a negative that scores far above one half
    counts less the surer it is, because it is probably mislabelled. Its slope there is
    still not negative.
    """
    loss = asymmetric(gamma_positive=gamma, gamma_negative=gamma, clip=clip)

    found = slope(loss, logit, truth)

    assert math.isfinite(found)
    assert found <= 0 if truth else found >= 0


def test_a_hard_negative_outweighs_an_easy_one_by_more_than_in_cross_entropy():
    """Which is what the loss is for."""

    def ratio(loss) -> float:
        return slope(loss, 0.0, 0.0) / slope(loss, -2.0, 0.0)

    assert ratio(asymmetric(**ASL)) > 2 * ratio(binary_cross_entropy())


def test_the_weight_of_positives_multiplies_only_them():
    """Four for the first label, one for the second."""
    weighted = binary_cross_entropy(positive_weight=torch.tensor([4.0, 1.0]))
    logits = torch.zeros(1, 2)

    there = weighted(logits, torch.tensor([[1.0, 1.0]])).item()
    absent = weighted(logits, torch.tensor([[0.0, 0.0]])).item()
    assert there == pytest.approx((4 + 1) * math.log(2) / 2)
    assert absent == pytest.approx(math.log(2))


def test_an_adjusted_loss_is_at_rest_where_the_logits_add_nothing_to_the_frequencies():
    """Menon et al.: the prior is in the shift, so the network need not learn it."""
    frequency = torch.tensor([0.7, 0.2, 0.1])
    loss = adjusted(cross_entropy(), frequency.log())
    logits = torch.zeros(10, 3, requires_grad=True)

    loss(logits, torch.tensor([0] * 7 + [1] * 2 + [2])).backward()

    assert torch.allclose(logits.grad.sum(0), torch.zeros(3), atol=1e-6)
