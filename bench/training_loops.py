"""network + images → **a round of training**: of a plain loop, and of ours.

The plain loop is what most CIFAR-10 code does: a DataLoader whose data set crops, flips
and normalizes one image at a time with Pillow and NumPy, float32, channels first, SGD.
Ours is the loop of `training/`: the data as one uint8 tensor, augmentation by batches,
bfloat16 where it pays, channels last.
"""

import time
from collections.abc import Callable, Iterator
from itertools import chain, count

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from classifier.hardware import available_cores
from training.configs.config import Config, parse_config
from training.data import Split
from training.data.batches import Order, ResidentBatches
from training.loop.arithmetic import keep_memory, place
from training.loop.budget import Work, make_plan
from training.loop.convolutions import use_products
from training.loop.distributed import Ranks
from training.loop.start import build_optimizers, timed_step
from training.loop.step import Learner, Steps
from training.networks import build
from training.objectives.objective import build_objective

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PAD = 4
ENDLESS = 10**8  # images
WARM_UP_S = 1.0

Round = Callable[[float], float]  # seconds → images a second


class PlainCifar(Dataset[tuple[Tensor, int]]):
    """One image at a time: zero-pad, crop, flip, to float, normalize."""

    def __init__(self, split: Split) -> None:
        pixels = split.pixels(config("resnet18_cifar", 128).data.spec)
        self._images = [Image.fromarray(image) for image in pixels]
        self._labels = split.labels.tolist()
        self._mean = np.array(MEAN, np.float32).reshape(3, 1, 1)
        self._std = np.array(STD, np.float32).reshape(3, 1, 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        padded = Image.new("RGB", (32 + 2 * PAD, 32 + 2 * PAD))
        padded.paste(self._images[index], (PAD, PAD))
        left, top = torch.randint(0, 2 * PAD + 1, (2,)).tolist()
        image = padded.crop((left, top, left + 32, top + 32))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        values = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
        return torch.from_numpy((values - self._mean) / self._std), self._labels[index]


def config(network: str, batch_size: int) -> Config:
    """Our side: the same network, optimizer and kind of augmentation."""
    return parse_config(
        {
            "name": "speed",
            "task": "multiclass",
            "data": {"path": "", "height": 32, "width": 32, "mean": MEAN, "std": STD},
            "network": {"name": network},
            "optimizer": ({"kind": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},),
            "augment": {"flip": "random", "crop": PAD},
            "train": {"epochs": 1, "batch_size": batch_size},
        },
        "bench/training_loops.py",
    )


def plain_round(network: str, split: Split, batch_size: int) -> tuple[str, Round]:
    """The plain loop, warmed up; each call trains for some seconds.

    Its images come from a sampler without an end, since the workers begin anew with an
    epoch, which takes a small network longer than the epoch. They are kept between the
    rounds: each imports torch when it starts.
    """
    model = build(network, classes=10, image_size=32).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    cifar = PlainCifar(split)
    loader = DataLoader(
        cifar,
        batch_size,
        sampler=RandomSampler(cifar, num_samples=ENDLESS),
        num_workers=available_cores(),
        persistent_workers=True,
    )
    loss_of = nn.CrossEntropyLoss()

    def steps(batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[None]:
        for images, labels in batches:
            optimizer.zero_grad()
            loss = loss_of(model(images), labels)
            loss.backward()
            optimizer.step()
            yield

    def train(seconds: float) -> float:
        batches = iter(loader)
        next(batches)  # the start of the workers is not counted
        return images_per_s(steps(batches), batch_size, seconds)

    train(WARM_UP_S)
    return "fp32", train


def our_round(network: str, split: Split, batch_size: int) -> tuple[str, Round]:
    """The loop of `training/`, warmed up, in the arithmetic that pays here."""
    keep_memory()
    settings = config(network, batch_size)
    ranks = Ranks(0, 1, torch.device("cpu"))
    objective = build_objective(settings.task, labels=10)
    order = Order(len(split), batch_size, seed=0)
    batches = ResidentBatches(
        split.pixels(settings.data.spec), split.labels, order, ranks.device
    )
    taken = Steps(settings, objective, samples=len(split))
    model = build(network, classes=10, image_size=32).train()
    place(model, ranks.device)
    prepare = timed_step(settings, taken, batches, ranks)
    work = Work(batches.steps(), batch_size, validation_images=0)
    plan = make_plan(model, prepare, settings.train, (1.0,), work)
    use_products(model, plan.products)
    learner = Learner(model, build_optimizers(model, settings, ranks))

    def steps() -> Iterator[None]:
        epochs = (batches.epoch(number) for number in count())
        for step, batch in enumerate(chain.from_iterable(epochs)):
            moment = taken.moment(
                step, steps_per_epoch=batches.steps(), progress=step / 10**6
            )
            taken.take(learner, batch, moment, precision=plan.precision)
            yield

    def train(seconds: float) -> float:
        return images_per_s(steps(), batch_size, seconds)

    train(WARM_UP_S)
    return str(plan.mode), train


def images_per_s(steps: Iterator[None], batch_size: int, seconds: float) -> float:
    """The rate of as many steps, without an end, as take at least so long."""
    started_s, spent_s, images = time.perf_counter(), 0.0, 0
    while spent_s < seconds:
        next(steps)
        images += batch_size
        spent_s = time.perf_counter() - started_s
    return images / spent_s


# Of each loop, what it computes in and its rounds.
ROUNDS: dict[str, Callable[[str, Split, int], tuple[str, Round]]] = {
    "plain": plain_round,
    "ours": our_round,
}
