"""answer → **response bytes**: `shapes.Answer`, without members that do not apply.

A pydantic model of it would take several times as long; a property test says that it
would be the same.
"""

from collections.abc import Sequence
from dataclasses import asdict

from classifier.decode import ImageInfo
from classifier.explanation import Explanation
from classifier.manifest import Manifest
from classifier.postprocess import Answer, Prediction
from service.jsons import to_json


def write_answer(
    manifest: Manifest,
    answer: Answer,
    image: ImageInfo,
    warnings: Sequence[str],
    *,
    request_id: str,
    explanation: Explanation | None = None,
) -> bytes:
    """One answer of a bundle as JSON."""
    members: dict[str, object] = {
        "id": request_id,
        "model": {"name": manifest.name, "version": manifest.version},
        "task": answer.task.value,
        "image": {
            "width": image.width,
            "height": image.height,
            "format": image.format,
        },
        "predictions": [_members(prediction) for prediction in answer.predictions],
    }
    if answer.decision is not None:
        members["decision"] = answer.decision
    if answer.abstained:
        members["abstained"] = True
    if answer.groups is not None:
        members["groups"] = [
            {"group": group.group, "score": group.score} for group in answer.groups
        ]
    if explanation is not None:
        members["explanation"] = asdict(explanation)
    members["warnings"] = warnings
    return to_json(members)


def _members(prediction: Prediction) -> dict[str, object]:
    members: dict[str, object] = {
        "label": prediction.label,
        "index": prediction.index,
        "id": prediction.id,
        "score": prediction.score,
    }
    if prediction.threshold is not None:
        members["threshold"] = prediction.threshold
    return members
