"""Tiny real bundles, whose answers anyone can work out: the reddest image is 'red'.

The graph averages each color over the image: logits = 16 x mean(R, G, B) / 255, so
softmax of a pure color gives it nearly 1. With `class_maps` the graph also tells the
four quarters of the image apart, and their mean is the logits. Two variants misbehave
on purpose, inside ONNX Runtime: a poisoned pixel fails the run, a slow one takes its
time.
"""

import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from classifier.bundle import write_bundle
from classifier.golden import Golden
from classifier.manifest import Manifest, Precision, Task
from classifier.session import Session

COLORS = ("red", "green", "blue")
GAIN = 16.0
POISON = 250  # a first pixel whose red is at least this fails the run
SLOW = 249  # a first pixel whose red is this runs a long loop


def png(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    """An image file of one color."""
    buffer = BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def graph(
    *,
    classes: int = 3,
    side: int = 8,
    misbehaves: bool = False,
    slow_loops: int = 0,
    class_maps: bool = False,
) -> bytes:
    """The ONNX model: pixels uint8 [N, side, side, 3] → logits float32 [N, classes]."""
    # K x 3: class k sees color k; more classes than colors see a mixture
    weights = np.zeros((3, classes), np.float32)
    for k in range(classes):
        weights[k % 3, k] = GAIN / 255 / (1 + k // 3)
    initializers = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["mixed"]),
    ]
    if misbehaves:
        nodes += _misbehavior(initializers, slow_loops)
    else:
        nodes.append(helper.make_node("Identity", ["mixed"], ["logits"]))
    outputs: dict[str, list[str | int]] = {"logits": ["N", classes]}
    if class_maps:
        nodes += _quarters(side)
        outputs["class_maps"] = ["N", classes, 2, 2]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "mean-color",
            [
                helper.make_tensor_value_info(
                    "pixels", TensorProto.UINT8, ["N", side, side, 3]
                )
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _quarters(side: int) -> list[Any]:
    """Nodes from `values` to `class_maps`, float32 [N, K, 2, 2]: one for a quarter."""
    half = [side // 2, side // 2]
    make = helper.make_node
    return [
        make("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        make("AveragePool", ["planes"], ["pooled"], kernel_shape=half, strides=half),
        make("Transpose", ["pooled"], ["quarters"], perm=[0, 2, 3, 1]),
        make("MatMul", ["quarters", "weights"], ["votes"]),  # float32 [N, 2, 2, K]
        make("Transpose", ["votes"], ["class_maps"], perm=[0, 3, 1, 2]),
    ]


def _misbehavior(initializers: list[Any], slow_loops: int) -> list[Any]:
    """Nodes that look the red of the first pixel up in a table that is too short."""
    table = np.zeros((POISON,), np.float32)
    trips = np.zeros((256,), np.int64)
    trips[SLOW] = slow_loops
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["go_on"]),
            helper.make_node("Add", ["carried", "carried"], ["carried_on"]),
        ],
        "wait",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, None),
        ],
    )
    initializers += [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(trips, "trips"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "squeezed"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    starts, ends = "starts", "ends"
    initializers += [
        numpy_helper.from_array(np.array([0, 0, 0], np.int64), starts),
        numpy_helper.from_array(np.array([1, 1, 1], np.int64), ends),
    ]
    return [
        helper.make_node("Slice", ["pixels", starts, ends, "squeezed"], ["corner"]),
        helper.make_node("Squeeze", ["corner", "squeezed"], ["red8"]),
        helper.make_node("Cast", ["red8"], ["red"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "red"], ["looked_up"]),  # float32 [N]
        helper.make_node("Gather", ["trips", "red"], ["each_trip"]),
        helper.make_node("ReduceMax", ["each_trip"], ["trip_count"], keepdims=0),
        helper.make_node(
            "Loop", ["trip_count", "true", "looked_up"], ["waited"], body=body
        ),
        helper.make_node("Unsqueeze", ["waited", "one"], ["column"]),
        helper.make_node("Add", ["mixed", "column"], ["logits"]),
    ]


def labels(task: Task, classes: int) -> list[dict[str, str | None]]:
    """Label entries: colors, then color-4, color-5 …, grouped warm and cold."""
    names = [*COLORS, *(f"color-{n}" for n in range(4, classes + 1))][:classes]
    if task is Task.BINARY:
        names = ["not red", "red"]
    grouped = task is Task.FINE_GRAINED
    return [
        {
            "id": name.replace(" ", "-"),
            "name": name,
            "group": ("warm" if name == "red" else "cold") if grouped else None,
        }
        for name in names
    ]


def manifest_fields(  # the manifest as plain data, for tests that break it
    name: str,
    task: Task = Task.MULTICLASS,
    *,
    version: int = 1,
    classes: int = 3,
    side: int = 8,
) -> dict[str, Any]:
    """A valid manifest but for the graph's hash."""
    sigmoid = task in (Task.BINARY, Task.MULTILABEL)
    logits = 1 if task is Task.BINARY else classes
    return {
        "schema_version": 1,
        "name": name,
        "version": version,
        "description": "Says which color an image has. Made for tests.",
        "task": task,
        "labels": labels(task, classes),
        "preprocess": {
            "height": side,
            "width": side,
            "color": "rgb",
            "resize": "squash",
            "short_side": None,
            "interpolation": "bilinear",
            "background": [255, 255, 255],
        },
        "postprocess": {
            "activation": "sigmoid" if sigmoid else "softmax",
            "temperature": 1.0,
            "thresholds": [0.9] * logits if sigmoid else None,
            "top_k": 1 if task is Task.BINARY else min(5, classes),
            "abstain_threshold": None,
        },
        "graphs": [
            {
                "precision": "fp32",
                "file": "model.onnx",
                "sha256": "0" * 64,
                "golden_tolerance": 1e-4,
                "gate": None,
                "metrics": [],
            }
        ],
        "provenance": {
            "command": "tests/synthetic.py",
            "config": None,
            "commit": None,
            "data_sha256": {},
            "versions": {},
            "hardware": "any",
            "seconds": 0.0,
            "created": "2026-01-01T00:00:00Z",
            "license": "Apache-2.0",
            "source": "made by hand",
            "optimizations": [],
        },
    }


def make_bundle(
    root: Path,
    name: str = "colors",
    task: Task = Task.MULTICLASS,
    *,
    version: int = 1,
    classes: int = 3,
    side: int = 8,
    **options: Any,
) -> Path:
    """Write a bundle below `root` and return its folder.

    `options` go to `graph`; `abstain_threshold` and `thresholds` to the postprocess.
    """
    fields = manifest_fields(name, task, version=version, classes=classes, side=side)
    for key in ("abstain_threshold", "thresholds", "top_k"):
        if key in options:
            fields["postprocess"][key] = options.pop(key)
    logits = 1 if task is Task.BINARY else classes
    model = graph(classes=logits, side=side, **options)
    fields["graphs"][0]["sha256"] = hashlib.sha256(model).hexdigest()
    pixels = golden_pixels(side)
    expected = Session.load(model, threads=1).run(pixels)
    return write_bundle(
        root,
        Manifest.model_validate_json(json.dumps(fields)),
        graphs={"model.onnx": model},
        golden=Golden(pixels, {Precision.FP32: expected}),
        card=f"# {name}\n\nSays which color an image has. Made for tests.\n",
    )


def golden_pixels(side: int) -> npt.NDArray[np.uint8]:
    """Two examples, uint8 [2, side, side, 3], that poison nothing."""
    generator = np.random.default_rng(0)
    return generator.integers(0, SLOW, (2, side, side, 3), dtype=np.uint8)
