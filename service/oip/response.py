"""outcomes → **answer** of the Open Inference Protocol, in JSON or binary.

`scores` has a column a label, so also two for a binary model, whose graph gives one
logit; `logits` is what the graph gives.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classifier.manifest import Manifest, Task
from classifier.postprocess import top
from service.contract import Outcome
from service.exchange import Headers
from service.jsons import to_json
from service.oip.request import LENGTH_HEADER, SCORES, Inference, Output
from service.oip.tensors import pack_bytes, pack_floats

Values = npt.NDArray[np.float32]  # [N, columns]
Described = dict[str, object]  # an output's JSON


def write_answer(
    manifest: Manifest, inference: Inference, outcomes: Sequence[Outcome]
) -> tuple[bytes, Headers]:
    """The body of a response, and the headers that belong to it."""
    outputs: list[Described] = []
    binary: list[bytes] = []
    for output in inference.outputs:
        described, data = write_output(manifest, output, outcomes)
        outputs.append(described)
        if data is not None:
            binary.append(data)
    answer: dict[str, object] = {
        "model_name": manifest.name,
        "model_version": str(manifest.version),
    }
    if inference.id is not None:
        answer["id"] = inference.id
    text = to_json({**answer, "outputs": outputs})
    if not binary:
        return text, [(b"content-type", b"application/json")]
    return b"".join((text, *binary)), [
        (b"content-type", b"application/octet-stream"),
        (LENGTH_HEADER, b"%d" % len(text)),
    ]


def write_output(
    manifest: Manifest, output: Output, outcomes: Sequence[Outcome]
) -> tuple[Described, bytes | None]:
    """One output's JSON, and its bytes where it is binary."""
    values = columns(manifest, output.name, outcomes)
    described: Described = {"name": output.name}
    if output.classes is None:
        described |= {"datatype": "FP32", "shape": list(values.shape)}
        if not output.binary:
            return {**described, "data": values.ravel().tolist()}, None
        data = pack_floats(values)
    else:
        labels = column_labels(manifest, output.name)
        texts = [
            text for row in values for text in classes(row, labels, output.classes)
        ]
        count = len(texts) // len(values)
        described |= {"datatype": "BYTES", "shape": [len(values), count]}
        if not output.binary:
            return {**described, "data": texts}, None
        data = pack_bytes(text.encode(errors="replace") for text in texts)
    return {**described, "parameters": {"binary_data_size": len(data)}}, data


def columns(manifest: Manifest, name: str, outcomes: Sequence[Outcome]) -> Values:
    """The values of an output, float32 [N, columns]."""
    if name != SCORES:
        return np.stack([outcome.logits for outcome in outcomes])  # float32 [N, K]
    scores = np.stack([outcome.scores for outcome in outcomes])  # float32 [N, K]
    if manifest.task is Task.BINARY:
        scores = np.hstack([1 - scores, scores])  # float32 [N, 2]: negative, positive
    return scores


def column_labels(manifest: Manifest, name: str) -> Sequence[str]:
    """The label of each column: the one logit of a binary model is the positive's."""
    labels = [label.name for label in manifest.labels]
    lone_logit = manifest.task is Task.BINARY and name != SCORES
    return labels[1:] if lone_logit else labels


def classes(values: Values, labels: Sequence[str], count: int) -> list[str]:
    """The best of float32 [columns] as `value:index:label`, best first.

    At most as many as there are, as Triton does. Clients split at the colons, so that
    one in a label becomes a semicolon.
    """
    return [
        f"{float(values[index])}:{index}:{labels[index].replace(':', ';')}"
        for index in top(values, count)
    ]
