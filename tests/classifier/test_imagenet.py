"""The committed ImageNet bundle on real photos: the accuracy that is promised."""

import numpy as np
import pytest

from classifier import Classifier
from classifier.manifest import Precision

SAMPLES = 60


@pytest.fixture(scope="module")
def scores(imagenet_bundle, sample_photos) -> dict[str, np.ndarray]:
    """Precision → float32 [60, 1000], each photo preprocessed once."""
    classifier = Classifier.load(imagenet_bundle, precision="fp32")
    batch = [classifier.preprocess(photo.path).pixels for photo in sample_photos]
    result = {}
    for precision in (Precision.FP32, Precision.INT8):
        if precision is not Precision.FP32:
            classifier = Classifier.load(imagenet_bundle, precision=precision)
        logits = [classifier.session.run(pixels[None])[0] for pixels in batch]
        result[str(precision)] = classifier.postprocessor.scores(np.stack(logits))
    return result


@pytest.fixture(scope="module")
def truth(sample_photos) -> np.ndarray:
    """Class index of each photo, int64 [60]."""
    return np.array([photo.class_index for photo in sample_photos])


@pytest.mark.parametrize(("k", "least"), [(1, 0.85), (5, 0.95)])
def test_fp32_finds_the_label_of_most_photos(scores, truth, k, least):
    """Wrong padding, epsilon or mean would lose 1.5 to 11 points."""
    ranked = np.argsort(-scores["fp32"], axis=1)[:, :k]

    assert len(truth) == SAMPLES
    assert (ranked == truth[:, None]).any(axis=1).mean() >= least


def test_int8_loses_at_most_a_point(scores, truth):
    """And agrees with fp32 on all but two of sixty photos (97 %)."""
    fp32, int8 = (scores[p].argmax(axis=1) for p in ("fp32", "int8"))

    assert (fp32 == truth).mean() - (int8 == truth).mean() <= 0.01
    assert (fp32 == int8).mean() >= 0.97 - 1 / SAMPLES


def test_labels_carry_their_wnids(imagenet_bundle, sample_photos):
    """The usual order of sorted wnids."""
    labels = Classifier.load(imagenet_bundle, precision="fp32").manifest.labels

    assert [labels[p.class_index].id for p in sample_photos] == [
        photo.wnid for photo in sample_photos
    ]
    assert [label.id for label in labels] == sorted(label.id for label in labels)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_photo_gets_the_same_logits_in_any_company(
    imagenet_bundle, sample_photos, size
):
    """Within float32's rounding, whatever the batch."""
    classifier = Classifier.load(imagenet_bundle, precision="fp32")
    batch = np.stack(
        [classifier.preprocess(photo.path).pixels for photo in sample_photos[:size]]
    )

    together = classifier.session.run(batch)

    alone = np.concatenate([classifier.session.run(one[None]) for one in batch])
    assert np.abs(together - alone).max() <= 1e-5 * np.abs(alone).max()
