"""answer → **response bytes**, joined by hand from parts that were serialized once.

A label is escaped when its bundle is loaded, not for each of its answers: an answer
with five labels takes 4 µs here and 15 µs through a pydantic model. What is written is
`shapes.Answer`, without the members that do not apply; a property test says so.
"""

import json
from dataclasses import asdict

from classifier.decode import ImageInfo
from classifier.explanation import Explanation
from classifier.manifest import Manifest
from classifier.postprocess import Answer, GroupScore, Prediction

# json.dumps builds an encoder for each call, which takes longer than a small answer.
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def to_json(value: object) -> bytes:
    """Compact JSON in UTF-8; a lone surrogate, which UTF-8 has not, becomes "?"."""
    return ENCODER.encode(value).encode(errors="replace")


class AnswerWriter:
    """Writes the answers of one bundle."""

    def __init__(self, manifest: Manifest) -> None:
        model = {"name": manifest.name, "version": manifest.version}
        self._head = b'","model":%b,"task":%b,"image":{"width":' % (
            to_json(model),
            to_json(manifest.task.value),
        )
        self._labels = [
            b'{"label":%b,"index":%d,"id":%b,"score":'
            % (to_json(label.name), index, to_json(label.id))
            for index, label in enumerate(manifest.labels)
        ]
        self._decisions = {label.name: to_json(label.name) for label in manifest.labels}
        self._groups = {
            label.group: to_json(label.group)
            for label in manifest.labels
            if label.group
        }

    def write(
        self,
        answer: Answer,
        image: ImageInfo,
        warnings: tuple[str, ...],
        *,
        request_id: str,
        explanation: Explanation | None = None,
    ) -> bytes:
        """One answer as JSON. `request_id` is of characters that need no escape."""
        parts = [
            b'{"id":"%b%b%d,"height":%d,"format":%b},"predictions":['
            % (
                request_id.encode(),
                self._head,
                image.width,
                image.height,
                to_json(image.format),
            ),
            b",".join([self._prediction(p) for p in answer.predictions]),
            b"]",
        ]
        if answer.decision is not None:
            parts.append(b',"decision":%b' % self._decisions[answer.decision])
        if answer.abstained:
            parts.append(b',"abstained":true')
        if answer.groups is not None:
            groups = b",".join([self._group(g) for g in answer.groups])
            parts.append(b',"groups":[%b]' % groups)
        if explanation is not None:
            parts.append(b',"explanation":%b' % to_json(asdict(explanation)))
        parts.append(b',"warnings":%b}' % (to_json(warnings) if warnings else b"[]"))
        return b"".join(parts)

    def _prediction(self, prediction: Prediction) -> bytes:
        # repr of a Python float is its shortest exact form, and JSON's
        score = repr(prediction.score).encode()
        if prediction.threshold is None:
            return b"%b%b}" % (self._labels[prediction.index], score)
        return b'%b%b,"threshold":%b}' % (
            self._labels[prediction.index],
            score,
            repr(prediction.threshold).encode(),
        )

    def _group(self, group: GroupScore) -> bytes:
        return b'{"group":%b,"score":%b}' % (
            self._groups[group.group],
            repr(group.score).encode(),
        )
