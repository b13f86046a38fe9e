"""The losses of a config reach the network, and it learns by them."""

import pytest
import torch

from training.configs.config import read_config
from training.loop.distributed import Ranks
from training.loop.runs import prepare, train

ALONE = Ranks(rank=0, world=1, device=torch.device("cpu"))
ONE_COLOR = 'positive = ["red"]'


def test_a_fresh_head_answers_with_the_frequencies_of_train(write_config, color_folder):
    """One image in three is red, and so says the network before its first step."""
    config = read_config(write_config("red", "binary", "colors", data=ONE_COLOR))

    ready = prepare(config, root=color_folder, ranks=ALONE)

    [bias] = ready.network.head.bias.tolist()
    positives = int(ready.splits.train.labels.sum())
    expected = (positives + 1) / (len(ready.splits.train) + 2)
    assert torch.sigmoid(torch.tensor(bias)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss",
    [
        'kind = "asymmetric"',
        'positive_weight = "ratio"',
        'positive_weight = "root"',
        "logit_adjustment = 1.0",
        "prior_bias = false",
    ],
)
def test_several_labels_on_an_image_are_learned_by_every_loss(
    write_config, halves_table, tmp_path, loss
):
    """Colors, left and right; a third of the epochs would not do."""
    path = write_config("halves", "multilabel", "halves", loss=loss, epochs="12")

    done = train(
        read_config(path),
        root=halves_table,
        folder=tmp_path / "run",
        ranks=ALONE,
        live=None,
    )

    assert done.outcome.scores["mAP"] > 0.9


def test_an_adjusted_loss_is_in_force(write_config, color_folder):
    """With tau 2 the untrained network's loss is that of twice the log-odds."""
    plain = write_config("a", "binary", "colors", data=ONE_COLOR)
    adjusted = write_config(
        "b", "binary", "colors", data=ONE_COLOR, loss="logit_adjustment = 2.0"
    )
    logits, labels = torch.zeros(2, 1), torch.tensor([0, 1])

    losses = [
        ready.objective.loss(logits, ready.objective.truth(labels)).item()
        for ready in (
            prepare(read_config(path), root=color_folder, ranks=ALONE)
            for path in (plain, adjusted)
        )
    ]

    assert losses[1] > losses[0] == pytest.approx(0.6931, abs=1e-3)
