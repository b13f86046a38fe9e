"""photos → **features to compare them by**: the same ones for every config.

Which photos belong to one scene must not depend on the network that is trained, or two
configs could not be compared on the same validation images. So their likeness is always
seen by the smallest pretrained network, on whole photos of its own size.
"""

from dataclasses import replace
from pathlib import Path

from training.configs.sections import DataConfig
from training.data import Dataset
from training.data.dataset import Split
from training.data.scenes import Scenes, scenes_by_likeness, scenes_by_name
from training.pretrained.published import MEAN, STD, find_published, load_published
from training.transfer.features import FeatureCache, Features, embedding_graph

NETWORK = "efficientnet_lite0"
SIDE = 224


def with_scenes(dataset: Dataset, config: DataConfig, cache: Path) -> Dataset:
    """The data set whose train split knows its scenes, if the config says how to tell.

    Raises:
        ConfigError: likeness is wanted, and the pretrained weights are not installed.
        DataError: names that do not match, or too many images to compare.
    """
    train = dataset.train
    if config.series is not None:
        names = [train.samples.inner_name(i) for i in range(len(train))]
        scenes = scenes_by_name(names, config.series)
    elif config.alike is not None:
        scenes = _by_likeness(train, config.alike, config.path, cache)
    else:
        return dataset
    parts = {**dataset.parts, "train": replace(train, scenes=scenes)}
    return replace(dataset, parts=parts)


def _by_likeness(train: Split, likeness: float, path: str, cache: Path) -> Scenes:
    seen = DataConfig(
        path=path, height=SIDE, width=SIDE, resize="squash", mean=MEAN, std=STD
    )
    network = load_published(find_published(NETWORK))
    store = FeatureCache(embedding_graph(network, seen), seen, cache)
    features: Features = store.features(train, crops=-1, smallest=0.5, seed=0)[0]
    return scenes_by_likeness(features, train.labels, likeness=likeness)
