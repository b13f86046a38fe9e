"""Muon makes updates orthogonal; every parameter has exactly one optimizer."""

import numpy as np
import pytest
import torch
from torch import nn

from training.configs.sections import OptimizerConfig, ScheduleConfig
from training.errors import ConfigError
from training.optimizers.ema import Lookahead, MovingAverage
from training.optimizers.muon import Muon, orthogonalize, orthogonalize_all
from training.optimizers.optimizers import Optimizers, keep_count_here


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (5, 8, 24)])
def test_orthogonal_updates_have_singular_values_near_one(shape):
    """Of tall, wide and batched matrices alike, whatever they were before."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrices, steps=5))

    assert values.min() > 0.3
    assert values.max() < 1.4


def test_the_directions_stay():
    """G = U S V^T becomes nearly U V^T: its product with G's own is nearly 1."""
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    update = orthogonalize(matrix, steps=5)

    cosine = (update * (u @ vt)).sum() / update.norm() / (u @ vt).norm()
    assert cosine > 0.95


def test_matrices_of_one_smaller_side_may_go_together():
    """Each gets its own, in its own place, as if it were alone."""
    draw = torch.Generator().manual_seed(2)
    shapes = [(1, 6, 18), (4, 3, 9), (1, 6, 18), (1, 18, 6), (1, 6, 7), (4, 30, 3)]
    matrices = [torch.randn(shape, generator=draw) for shape in shapes]

    one_by_one = orthogonalize_all(matrices, together=False)
    at_once = orthogonalize_all(matrices, together=True)

    for alone, other in zip(one_by_one, at_once, strict=True):
        assert alone.shape == other.shape
        assert torch.allclose(alone, other, atol=2e-2)
    assert not torch.allclose(at_once[0], at_once[2], atol=0.1)


def test_a_grouped_convolution_is_a_batch_of_small_ones():
    """The update of the whole is that of each group by itself."""
    whole = nn.Conv2d(8, 12, 3, groups=4, bias=False)
    with torch.no_grad():  # so that the whole has the norm of its parts together
        for part in whole.weight.chunk(4):
            part.mul_(len(part) ** 0.5 / part.norm())
    parts = [nn.Parameter(p.detach().clone()) for p in whole.weight.chunk(4)]
    gradient = torch.randn_like(whole.weight)
    whole.weight.grad = gradient
    for part, own in zip(parts, gradient.chunk(4), strict=True):
        part.grad = own.clone()
    options = {"lr": 0.1, "momentum": 0.9}
    Muon([{"params": [whole.weight], "groups": 4}], **options).step()
    for part in parts:
        Muon([part], **options).step()

    assert torch.allclose(whole.weight, torch.cat(parts), atol=5e-3)


def by_hand(weight, gradients, *, rate, momentum, decay=0.0, scaled=False):
    """What `Muon` promises, in NumPy: weight and each gradient float [O, I]."""
    average = np.zeros_like(weight)
    for gradient in gradients:
        average = momentum * average + gradient
        x = gradient + momentum * average  # Nesterov
        x = x / np.linalg.norm(x)
        for _ in range(3):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        if scaled:
            weight = weight * len(weight) ** 0.5 / np.linalg.norm(weight)
        weight = weight * (1 - rate * decay) - rate * x
    return weight


@pytest.mark.parametrize("momentum", [0.6, 0.0])
def test_steps_of_muon_are_what_the_formula_says(momentum):
    """Of a filter, scaled first, and of a matrix, which decays; in bfloat16."""
    rng = np.random.default_rng(0)
    begun = rng.normal(size=(2, 6, 18))
    gradients = rng.normal(size=(2, 2, 6, 18))  # of the first and of the second step
    filters = nn.Parameter(torch.tensor(begun[0]).view(6, 2, 3, 3))
    matrix = nn.Parameter(torch.tensor(begun[1]))
    blocks = [{"params": [filters]}, {"params": [matrix], "weight_decay": 0.5}]
    muon = Muon(blocks, lr=0.2, momentum=momentum)

    for of_filters, of_matrix in gradients:
        filters.grad = torch.tensor(of_filters).view(6, 2, 3, 3)
        matrix.grad = torch.tensor(of_matrix)
        muon.step()

    options = {"rate": 0.2, "momentum": momentum}
    expected = by_hand(begun[0], gradients[:, 0], scaled=True, **options)
    found = filters.detach().numpy().reshape(6, 18)
    np.testing.assert_allclose(found, expected, atol=1e-2)
    expected = by_hand(begun[1], gradients[:, 1], decay=0.5, **options)
    np.testing.assert_allclose(matrix.detach().numpy(), expected, atol=1e-2)


def test_what_is_zero_stays_finite():
    """Filters that an initialization has silenced, and gradients that do not come."""
    filters = nn.Parameter(torch.zeros(6, 2, 3, 3))
    filters.grad = torch.zeros_like(filters)

    Muon([filters], lr=0.2).step()

    assert torch.equal(filters.detach(), torch.zeros(6, 2, 3, 3))


def network():
    """A convolution, a norm and a head."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
    )


def sgd(parameters, **options):
    """An optimizer's config."""
    return OptimizerConfig(
        kind="sgd", learning_rate=0.1, parameters=parameters, **options
    )


def muon(parameters: str, **options) -> OptimizerConfig:
    return OptimizerConfig(
        kind="muon", learning_rate=0.1, parameters=parameters, **options
    )


def test_the_first_that_fits_takes_a_parameter():
    """By shape, or by a regular expression on the name."""
    configs = (
        muon("filters"),
        sgd(r"3\.weight"),
        OptimizerConfig(kind="frozen", parameters=r"1\..*"),
        OptimizerConfig(kind="adamw", learning_rate=0.1),
    )
    net = network()
    optimizers = Optimizers(net, configs, ScheduleConfig())

    assert len(optimizers.parameters()) == 4
    assert [p.requires_grad for p in net.parameters()] == [True] * 2 + [False] * 2 + [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ((sgd("filters"),), r"no \[\[optimizer\]\] takes the parameter 0\.bias"),
        ((sgd("all"), sgd("vectors")), "takes none"),
        ((sgd("(unclosed"),), "as a regular expression"),
        ((sgd("3"), sgd("all")), "takes none"),
        ((muon("all"),), "give vectors to sgd"),
        ((muon(r"3\..*"), sgd("all")), "give vectors to sgd"),
    ],
)
def test_what_cannot_be_assigned_is_refused(configs, message):
    """A parameter without an optimizer would silently never learn."""
    with pytest.raises(ConfigError, match=message):
        Optimizers(network(), configs, ScheduleConfig())


def test_muon_takes_no_weight_decay_for_filters():
    """Their norm is fixed, so that it would do nothing; to matrices it does."""
    filters, both, matrices = (
        muon(x, weight_decay=0.1) for x in ("filters", r"[03]\.weight", "matrices")
    )

    for config in (filters, both):
        with pytest.raises(ConfigError, match=r"weight_decay is 0\.1; muon scales"):
            Optimizers(network(), (config, sgd("all")), ScheduleConfig())
    Optimizers(network(), (matrices, sgd("all")), ScheduleConfig())


def test_weights_that_do_not_learn_need_no_optimizer():
    """A transfer may have frozen them before."""
    net = network()
    net[0].requires_grad_(False)
    net[1].requires_grad_(False)

    optimizers = Optimizers(net, (sgd(r"3\..*"),), ScheduleConfig())

    assert len(optimizers.parameters()) == 2


def test_muon_knows_the_groups_of_a_convolution():
    """By the module that a weight is of."""
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=2, bias=False)
    )

    [state] = Optimizers(net, (muon("all"),), ScheduleConfig()).state_dict()

    groups = {group["groups"]: group["params"] for group in state["param_groups"]}
    assert groups == {1: [0], 2: [1]}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("sgd", {"momentum": 0.3, "weight_decay": 0.01}),
        ("adamw", {"betas": (0.5, 0.6), "weight_decay": 0.02}),
        ("muon", {"momentum": 0.3, "weight_decay": 0.02}),
    ],
)
def test_each_kind_hands_its_options_on(kind, options):
    """None of them learns with the defaults of torch in place of what a config says."""
    config = OptimizerConfig(
        kind=kind, learning_rate=0.1, parameters="matrices", **options
    )
    optimizers = Optimizers(network(), (config, sgd("all")), ScheduleConfig())

    [group] = optimizers.state_dict()[0]["param_groups"]

    assert {name: group[name] for name in options} == options


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_nesterovs_where_there_is_momentum(momentum):
    """Its first step is longer than the gradient by the momentum's part of it."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    config = sgd("all", momentum=momentum)
    optimizers = Optimizers(net, (config,), ScheduleConfig(shape="constant"))
    optimizers.schedule(0.0)
    net.weight.grad = torch.ones(1, 1)

    optimizers.step()

    assert net.weight.item() == pytest.approx(-0.1 * (1 + momentum))


def test_rates_follow_the_schedule_that_the_config_has():
    """Times what a search for a good rate varies; who rises from 0 does not freeze."""
    shape = ScheduleConfig(shape="cosine", warmup=0.25, start=0.2, final=0.1)
    from_zero = shape.model_copy(update={"start": 0.0})
    rates = []
    for progress in (0.0, 0.125, 0.25, 0.625, 1.0):
        optimizers = Optimizers(network(), (sgd("all"),), shape)
        optimizers.schedule(progress, multiple=3)
        rates.append(optimizers.state_dict()[0]["param_groups"][0]["lr"])
    optimizers = Optimizers(network(), (sgd("all"),), from_zero)
    optimizers.schedule(0.0)

    assert rates == pytest.approx([0.06, 0.18, 0.3, 0.165, 0.03])
    assert all(parameter.requires_grad for parameter in optimizers.parameters())


def test_the_rate_of_what_is_to_freeze_falls_in_a_line():
    """Whatever the schedule of the others, which rises or stays meanwhile; a search for
    a good rate varies both.
    """
    shape = ScheduleConfig(shape="constant")
    configs = (sgd("vectors", until=0.5), sgd("all"))
    optimizers = Optimizers(network(), configs, shape)
    rates = []
    for progress in (0.0, 0.125, 0.25, 0.5):
        optimizers.schedule(progress, multiple=2)
        own, others = optimizers.state_dict()
        rates.append(own["param_groups"][0]["lr"])

    assert rates == pytest.approx([0.2, 0.15, 0.1, 0])
    assert others["param_groups"][0]["lr"] == 0.2


def test_what_freezes_early_stops_and_needs_no_gradient():
    """After its part of the training."""
    net = network()
    optimizers = Optimizers(
        net, (sgd("vectors", until=0.5), sgd("all")), ScheduleConfig()
    )
    optimizers.schedule(0.25)
    assert net[0].bias.requires_grad
    optimizers.schedule(0.5)

    assert not net[0].bias.requires_grad
    assert net[0].weight.requires_grad


def test_where_gradients_must_be_computed_the_frozen_ones_count_for_nothing():
    """Several processes wait for all of them. They take the steps of one all the same,
    though clipping measures all gradients together, and Muon scales without a rate.
    """
    configs = (muon("filters", until=0.5), sgd("all"))
    images = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    ends = []
    for freezes in (True, False):
        torch.manual_seed(0)
        net = network()
        optimizers = Optimizers(net, configs, ScheduleConfig(), freezes=freezes)
        for progress in (0.25, 0.5, 0.75):
            optimizers.schedule(progress)
            optimizers.zero_grad()
            net(images).square().sum().backward()
            optimizers.step(clip_norm=0.1)
        ends.append(nn.utils.parameters_to_vector(net.parameters()))

    assert torch.equal(*ends)


def test_clipping_keeps_the_direction():
    """The norm of all gradients becomes the limit, whoever has which; smaller ones are
    left alone.
    """
    net = nn.Linear(1, 1)
    optimizers = Optimizers(net, (sgd("matrices"), sgd("vectors")), ScheduleConfig())
    net.weight.grad, net.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    for limit in (None, 1.0, 2.0):
        optimizers.step(clip_norm=limit)
        expected = [3, 4] if limit is None else [0.6, 0.8]
        found = [net.weight.grad.item(), net.bias.grad.item()]
        assert found == pytest.approx(expected)


def test_a_moving_average_is_lent_to_the_network_and_taken_back():
    """Inside the block the average is in place; after it, the network's own weights.

    It begins with the first weights, not at 0, to which it would be drawn for long.
    """
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, decay=0.75)
    for value in (2.0, 6.0):
        net.weight.data.fill_(value)
        average.update()

    with average.in_place():
        assert net.weight.item() == pytest.approx(3.0)
    assert net.weight.item() == 6.0


def test_an_average_has_the_counters_of_the_network():
    """A half of a batch is no batch: they are copied, while statistics are averaged."""
    norm = nn.BatchNorm2d(1)
    average = MovingAverage(norm, decay=0.5)
    for _ in range(3):
        norm(torch.ones(2, 1, 2, 2))
        average.update()

    with average.in_place():
        assert norm.num_batches_tracked.item() == 3
        assert 0.1 < norm.running_mean.item() < 0.271  # of the first and of the third


def moved(*, decay: float) -> tuple[nn.Linear, Lookahead]:
    """A weight that has gone from 0 to 8, and a lookahead of two steps."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    lookahead = Lookahead(net, every=2, decay=decay)
    net.weight.data.fill_(8.0)
    return net, lookahead


def test_lookahead_jumps_back_every_so_many_steps():
    """Towards where the weights were, the more the later."""
    net, lookahead = moved(decay=1.0)

    lookahead.update(0, progress=0.5)
    assert net.weight.item() == 8.0
    lookahead.update(1, progress=0.5)
    assert net.weight.item() == pytest.approx(7.0)


def test_lookahead_forgets_its_part_with_each_step_and_not_with_each_jump():
    """At the end, with 0.5 a step and two steps a jump, a quarter stays behind."""
    net, lookahead = moved(decay=0.5)

    lookahead.update(1, progress=1.0)

    assert net.weight.item() == pytest.approx(6.0)


def test_the_slow_weights_are_lent_and_in_the_end_left_to_the_network():
    """What a step has made of them since the jump is for the next jump only."""
    net = nn.Linear(1, 1, bias=False)
    lookahead = Lookahead(net, every=2, decay=1.0)
    net.weight.data.fill_(8.0)
    lookahead.update(0, progress=0.0)
    with lookahead.in_place(1):
        assert net.weight.item() == 8.0  # none before the first jump
    lookahead.update(1, progress=0.0)
    net.weight.data.fill_(9.0)

    for step in (2, 3):  # right after the jump, and later
        with lookahead.in_place(step):
            assert net.weight.item() == 8.0
    assert net.weight.item() == 9.0
    lookahead.settle(3)
    assert net.weight.item() == 8.0


def test_slow_weights_leave_the_count_of_batches_alone():
    """A batch norm's averages are slow, too; its counter is none."""
    norm = nn.BatchNorm2d(1)
    lookahead = Lookahead(norm, every=1, decay=1.0)
    norm(torch.ones(2, 1, 2, 2))
    mean = norm.running_mean.clone()
    lookahead.update(0, progress=1.0)

    with lookahead.in_place(1):
        assert norm.running_mean.item() == 0
        assert norm.num_batches_tracked.item() == 1
    assert norm.num_batches_tracked.item() == 1
    assert mean.item() > 0


def test_lookahead_jumps_once_with_what_has_two_names():
    """As a norm has that is folded into the weight and the bias before it."""
    shared = nn.Linear(1, 1, bias=False)
    net = nn.ModuleDict({"one": shared, "other": shared})
    shared.weight.data.fill_(0.0)
    lookahead = Lookahead(net, every=1, decay=1.0)
    shared.weight.data.fill_(8.0)

    lookahead.update(0, progress=0.5)

    assert shared.weight.item() == pytest.approx(7.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_adamw_that_goes_on_counts_its_steps_where_it_did_before():
    """On the CPU: from the device it would fetch each count in each step."""
    config = OptimizerConfig(parameters="all", kind="adamw", learning_rate=0.1)
    network = nn.Linear(2, 2).cuda()

    def build() -> Optimizers:
        return Optimizers(network, (config,), ScheduleConfig())

    before, after = build(), build()
    network(torch.ones(1, 2).cuda()).sum().backward()
    before.step()
    after.load_state_dict(
        [
            {
                **each,
                "state": {
                    n: {key: value.cuda() for key, value in own.items()}
                    for n, own in each["state"].items()
                },
            }
            for each in before.state_dict()
        ]
    )

    (state,) = after.state_dict()
    assert {own["step"].device.type for own in state["state"].values()} == {"cpu"}


def test_a_count_of_steps_is_kept_on_the_cpu():
    """A momentum stays where it is, and an optimizer without a count is left alone."""
    elsewhere = torch.ones(2, device="meta")
    state = {"step": torch.tensor(3.0), "exp_avg": elsewhere}
    plain: dict[str, torch.Tensor] = {"momentum_buffer": elsewhere}

    keep_count_here(state)
    keep_count_here(plain)

    assert (state["step"].item(), state["step"].device.type) == (3, "cpu")
    assert state["exp_avg"] is plain["momentum_buffer"] is elsewhere
