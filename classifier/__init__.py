"""Everything that decides a prediction: bundle, decode, preprocess, run, postprocess.

A library of its own, without torch and without the service:

    from classifier import Classifier

    answer = Classifier.load("models/imagenet").classify("cat.jpg")
    print(answer.predictions[0].label, answer.predictions[0].score)
"""

from classifier.classifier import Classification, Classifier
from classifier.decode import DecodeLimits, ImageInfo
from classifier.errors import ClassifierError
from classifier.explanation import Explanation
from classifier.manifest import Manifest, Precision, Task
from classifier.postprocess import Answer, GroupScore, Prediction

__all__ = [
    "Answer",
    "Classification",
    "Classifier",
    "ClassifierError",
    "DecodeLimits",
    "Explanation",
    "GroupScore",
    "ImageInfo",
    "Manifest",
    "Precision",
    "Prediction",
    "Task",
]
