"""The loop learns, stops when it should, and says what went wrong."""

import io
import itertools
import logging
import math
import shutil
from dataclasses import replace

import pytest
import torch

from tests.training.loop.runs import CONFIG, write_config, write_digits
from training.configs.config import read_config
from training.errors import CheckpointError, ConfigError, DivergedError
from training.loop.checkpoint import read_checkpoint, write_checkpoint
from training.loop.distributed import Ranks
from training.loop.log import read_log
from training.loop.loop import Room, fit
from training.loop.rate_finder import RateCurve, find_rate
from training.loop.runs import prepare, train
from training.loop.validation import Validation
from training.optimizers.ema import Lookahead, MovingAverage

RANKS = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def root(tmp_path):
    """Digits and a config."""
    write_config(tmp_path)
    return write_digits(tmp_path)


def trained(root, *changes, folder="run"):
    """The outcome and what was said."""
    said = io.StringIO()
    config = read_config(root / "tiny.toml", changes)
    done = train(config, root=root, folder=root / folder, ranks=RANKS, live=said)
    return done, said.getvalue()


def test_it_learns_what_can_be_learned(root):
    """Ten clean patterns, four epochs."""
    done, _ = trained(root, "augment={}")

    assert done.outcome.scores["accuracy"] > 0.9
    assert done.outcome.steps == 4 * 15


def test_the_log_has_a_row_an_epoch(root):
    """With loss, validation scores and times."""
    trained(root)
    rows = read_log(root / "run" / "log.csv")

    assert [row["step"] for row in rows] == [15, 30, 45, 60]
    assert {"train_loss", "validation_accuracy", "seconds"} <= set(rows[0])


def test_averaged_weights_are_what_is_kept(root):
    """`final.pt` holds the average, `last.pt` the weights of the last step."""
    trained(root)
    last = read_checkpoint(root / "run" / "last.pt")
    final = read_checkpoint(root / "run" / "final.pt")

    assert torch.equal(final["network"]["fc3.bias"], last["ema"]["fc3.bias"])
    assert not torch.equal(final["network"]["fc3.bias"], last["network"]["fc3.bias"])


@pytest.mark.parametrize(
    ("kind", "changes", "moments"),
    [
        (MovingAverage, ["train.ema_from=0.4"], [()] * 10),  # steps 6 to 15 end then
        (
            Lookahead,
            ["train.lookahead=5", "train.ema=0"],
            [(step, (step + 1) / 15) for step in range(15)],
        ),
    ],
)
def test_weights_are_averaged_when_they_are_to_be(
    root, monkeypatch, kind, changes, moments
):
    """An average of all steps would have fresh weights in it."""
    told, update = [], kind.update

    def noted(average, *moment):
        told.append(moment)
        update(average, *moment)

    monkeypatch.setattr(kind, "update", noted)

    trained(root, "train.epochs=1", *changes)

    assert told == moments


def test_lookahead_keeps_the_slow_weights(root):
    """Of 60 steps the last 4 come after the last jump, and leave no trace."""
    done, _ = trained(root, "train.lookahead=7", "train.ema=0")
    last = read_checkpoint(root / "run" / "last.pt")
    final = read_checkpoint(root / "run" / "final.pt")
    rows = read_log(root / "run" / "log.csv")

    assert torch.equal(final["network"]["fc3.bias"], last["lookahead"]["fc3.bias"])
    assert not torch.equal(final["network"]["fc3.bias"], last["network"]["fc3.bias"])
    assert rows[-1]["validation_loss"] == pytest.approx(done.outcome.scores["loss"])


def test_a_part_of_an_epoch_is_a_length(root):
    """Budgets do not come in whole epochs."""
    done, _ = trained(root, "train.epochs=1.4")

    assert done.outcome.steps == 21


def test_minutes_are_planned_from_measured_steps(root):
    """What was measured, and chosen, is in the plan."""
    done, said = trained(root, "train.minutes=0.05", 'train.precision="auto"')

    assert set(done.outcome.plan.measured) == {"fp32", "bf16"}
    assert done.outcome.steps > 0
    assert "measured" in said


def test_too_few_minutes_are_an_error(root):
    """Rather than a network without a single step."""
    with pytest.raises(ConfigError, match="less than a step"):
        trained(root, "train.minutes=1e-6")


def test_patience_ends_a_run_that_gains_nothing(root):
    """With a rate that hardly moves a weight, no epoch is better than the first.

    What is recorded is the length that it had, not the one that was planned.
    """
    text = CONFIG.replace("learning_rate = 0.02", "learning_rate = 1e-12")
    write_config(root, text.replace("learning_rate = 3e-3", "learning_rate = 1e-12"))
    done, _ = trained(root, "train.patience=2", "train.epochs=30", "train.ema=0.0")

    assert done.outcome.steps < 30 * 15
    assert done.outcome.epochs == done.outcome.steps / 15
    assert read_checkpoint(root / "run" / "final.pt")["epochs"] == done.outcome.epochs


def test_the_best_epoch_is_kept_when_asked_for(root):
    """By the score on validation, never on test, and as it was looked at: averaged."""
    trained(root, 'train.keep="best"', "train.ema_from=0")
    rows = read_log(root / "run" / "log.csv")
    final = read_checkpoint(root / "run" / "final.pt")

    best = max(
        rows, key=lambda row: (row["validation_accuracy"], -row["validation_loss"])
    )
    for name in ("accuracy", "loss"):
        assert final["scores"][name] == pytest.approx(best[f"validation_{name}"])


@pytest.mark.parametrize(
    ("scores", "kept", "idle"),
    [
        ([(0.8, 0.5), (0.8, 0.4), (0.8, 0.6), (0.7, 0.1)], 2, 3),
        ([(0.8, 0.5), (0.9, 0.7), (0.9, 0.7)], 2, 1),
        ([(1.0, 0.5), (1.0, 0.1)], 2, 1),
    ],
)
def test_of_epochs_of_one_score_that_of_the_lowest_loss_is_kept(
    root, monkeypatch, scores, kept, idle
):
    """With few images many have the same. Patience counts only what is better."""
    looks = iter(scores)
    seen = []

    def told(validation, network, precision):
        seen.append(
            {name: value.clone() for name, value in network.state_dict().items()}
        )
        accuracy, loss = next(looks, (0.0, 0.0))
        return {"accuracy": accuracy, "loss": loss}

    monkeypatch.setattr(Validation, "scores", told)
    epochs = f"train.epochs={len(scores)}"

    trained(root, epochs, 'train.keep="best"', "train.ema=0.0")

    final = read_checkpoint(root / "run" / "final.pt")["network"]
    assert all((final[n] == value).all() for n, value in seen[kept - 1].items())
    state = read_checkpoint(root / "run" / "last.pt")
    assert state["looks_without_gain"] == idle
    assert (state["best"], state["best_loss"]) == scores[kept - 1]


def test_a_loss_that_is_no_number_stops_the_run(root):
    """And the message says what to change."""
    huge = CONFIG.replace('kind = "adamw"', 'kind = "sgd"').replace("3e-3", "1e30")
    write_config(root, huge)

    with pytest.raises(DivergedError, match="lower learning_rate"):
        trained(root)


def lost_from(loss, call):
    """The loss, which is no number from its so-manieth call."""
    calls = itertools.count(1)
    return lambda logits, truth: (
        loss(logits, truth) * (math.nan if next(calls) >= call else 1)
    )


def test_a_checkpoint_in_an_epoch_does_not_replace_the_last_good_one(root):
    """Its loss is looked at first, though a step later would have been the tenth."""
    config = read_config(root / "tiny.toml", ("train.checkpoint_minutes=1e-6",))
    ready = prepare(config, root=root, ranks=RANKS)
    lost = replace(ready.objective, loss=lost_from(ready.objective.loss, 12))

    with pytest.raises(DivergedError, match="the loss is nan by step 12 of 60"):
        fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=lost, room=Room(root / "run", RANKS),
        )  # fmt: skip

    saved = read_checkpoint(root / "run" / "last.pt")
    assert saved["step"] == 11
    assert all(value.isfinite().all() for value in saved["network"].values())


def test_a_checkpoint_comes_with_the_validation_and_not_with_each_epoch(root):
    """Epochs that take a second would wait for the disk as long."""
    config = read_config(root / "tiny.toml", ("train.validate_every=2",))
    ready = prepare(config, root=root, ranks=RANKS)
    lost = replace(ready.objective, loss=lost_from(ready.objective.loss, 46))

    with pytest.raises(DivergedError):
        fit(
            ready.network, config, train=ready.batches, validation=None,
            objective=lost, room=Room(root / "run", RANKS),
        )  # fmt: skip

    assert read_checkpoint(root / "run" / "last.pt")["step"] == 30


def test_a_validation_loss_that_is_no_number_stops_the_run(root):
    """Before the checkpoint of its epoch: that of the first is the last good one."""
    config = read_config(root / "tiny.toml")
    ready = prepare(config, root=root, ranks=RANKS)
    lost = replace(ready.objective, loss=lost_from(ready.objective.loss, 2))
    watched = Validation(ready.splits.validation, config.data, lost, batch_size=20)

    with pytest.raises(DivergedError, match="the validation loss is nan by step 30"):
        fit(
            ready.network, config, train=ready.batches, validation=watched,
            objective=ready.objective, room=Room(root / "run", RANKS),
        )  # fmt: skip

    assert read_checkpoint(root / "run" / "last.pt")["step"] == 15


def test_the_checkpoint_of_another_config_is_not_continued(root):
    """Half of the run would have been something else."""
    trained(root, "train.epochs=1")

    with pytest.raises(CheckpointError, match="made with another config: seed differ"):
        trained(root, "train.epochs=1", "seed=5")


def test_a_run_does_not_go_on_with_other_data(root):
    """What it has learned could now be validation, and its labels others."""
    trained(root, "train.epochs=1")
    shutil.rmtree(root / "digits")
    write_digits(root, train=340)

    with pytest.raises(CheckpointError, match=r"last\.pt was trained on other images"):
        trained(root, "train.epochs=1")


def test_a_checkpoint_of_before_fingerprints_is_continued_with_a_word(
    root, caplog, monkeypatch
):
    """A training that has run for days is not thrown away for that."""
    # commands turn it off, and some have run in this process
    monkeypatch.setattr(logging.getLogger("training"), "propagate", True)
    first, _ = trained(root, "train.epochs=1")
    saved = read_checkpoint(root / "run" / "last.pt")
    del saved["fingerprints"], saved["labels"]
    write_checkpoint(root / "run" / "last.pt", saved)

    again, _ = trained(root, "train.epochs=1")

    assert again.outcome.scores == first.outcome.scores
    assert "does not say which images" in caplog.text


def test_a_task_that_the_data_does_not_fit_is_refused(root):
    """Ten labels are no binary question until one of them is named."""
    with pytest.raises(ConfigError, match=r"data\.positive"):
        trained(root, "task=binary")

    done, _ = trained(root, "task=binary", 'data.positive=["3"]', "augment={}")
    assert done.network.head.out_features == 1
    assert "average_precision" in done.outcome.scores


def test_a_transfer_in_several_processes_is_refused(root):
    """Before the data is opened: each would do all of it, into the same files."""
    start, end = CONFIG.index("[[optimizer]]"), CONFIG.index("[train]")
    write_config(root, CONFIG[:start] + "[transfer]\n\n" + CONFIG[end:])
    colors = ("data.color=rgb", "data.mean=[0.2,0.2,0.2]", "data.std=[0.3,0.3,0.3]")
    config = read_config(root / "tiny.toml", colors)
    ranks = Ranks(0, 2, torch.device("cpu"))

    with pytest.raises(ConfigError, match="without torchrun"):
        train(config, root=root, folder=root / "run", ranks=ranks, live=None)

    assert not (root / "run").exists()


def test_a_rate_is_looked_for_at_the_peak_of_its_schedule(root):
    """Which would hide it: a factor is one on the highest rate of a training."""
    curves = []
    for schedule in ('{shape="constant"}', '{shape="linear", warmup=0.5, start=0.01}'):
        changes = ("augment={}", f"schedule={schedule}")
        config = read_config(root / "tiny.toml", changes)
        ready = prepare(config, root=root, ranks=RANKS)
        curves.append(
            find_rate(ready.network, config, ready.batches, ready.objective, RANKS)
        )

    assert curves[0] == curves[1]


def test_the_rate_finder_points_to_a_rate_that_learns(root):
    """Far above it the loss blows up, far below it nothing moves."""
    config = read_config(root / "tiny.toml", ("augment={}",))
    ready = prepare(config, root=root, ranks=RANKS)
    curve = find_rate(ready.network, config, ready.batches, ready.objective, RANKS)

    assert 1e-2 < curve.suggested < 30
    assert min(curve.losses) < curve.losses[0]


@pytest.mark.parametrize(
    ("losses", "suggested"),
    [
        ((5.0, 4.9, 3.0, 2.5, 6.0), 2.0),  # where the fall by 1.9 begins
        ((5.0, 4.0, 2.5, 9.0, 1.0), 4.0),  # the lowest may come after a rise
        ((5.0, 6.0, 9.0), 1.0),  # it only rises: no rate is too small
        ((5.0, 4.0), 1.0),
    ],
)
def test_the_suggested_rate_is_where_the_loss_falls_fastest(losses, suggested):
    """Not where it is lowest: there it is about to blow up."""
    factors = (1.0, 2.0, 3.0, 4.0, 5.0)[: len(losses)]

    assert RateCurve(factors, losses).suggested == suggested


def test_a_rank_that_searches_a_rate_waits_for_no_other(root):
    """Each ends by its own loss; here there is no other at all."""
    config = read_config(root / "tiny.toml", ("selection.proxy='lenet5'",))
    ranks = Ranks(0, 2, torch.device("cpu"))
    ready = prepare(config, root=root, ranks=ranks)

    curve = find_rate(
        ready.network, config, ready.batches, ready.objective, ranks, ready.proxy
    )

    assert curve.losses


@pytest.mark.parametrize("lost", ["network", "proxy"])
def test_a_first_loss_that_is_no_number_is_no_matter_of_the_rate(root, lost):
    """There is no curve to suggest a rate from; the error says where to look."""
    config = read_config(root / "tiny.toml", ("selection.proxy='lenet5'",))
    ready = prepare(config, root=root, ranks=RANKS)
    with torch.no_grad():
        getattr(ready, lost).head.bias[0] = torch.nan

    with pytest.raises(DivergedError, match=f"first loss of the {lost} is no number"):
        find_rate(
            ready.network, config, ready.batches, ready.objective, RANKS, ready.proxy
        )
