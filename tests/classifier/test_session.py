"""graph → session: the contract, the device, the threads."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from classifier.bundle import load_bundle
from classifier.device import cuda_problem
from classifier.errors import (
    BundleError,
    DeviceUnavailableError,
    OutOfMemoryError,
    SessionError,
)
from classifier.hardware import available_cores
from classifier.manifest import Precision
from classifier.runtime import onnxruntime
from classifier.session import Session, _translated
from tests.synthetic import POISON, graph


def pixels(n: int = 1, seed: int = 0) -> np.ndarray:
    """A batch, uint8 [n, 8, 8, 3]."""
    return np.random.default_rng(seed).integers(0, 249, (n, 8, 8, 3), dtype=np.uint8)


def model(
    *,
    name: str = "pixels",
    dtype: int = TensorProto.UINT8,
    shape: tuple[object, ...] = ("N", 8, 8, 3),
    output: str = "logits",
    more: str | None = None,
) -> bytes:
    """A graph that may break the contract at one place."""
    nodes = [
        helper.make_node("Cast", [name], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], [output], keepdims=0),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "contract",
            [
                helper.make_tensor_value_info(each, dtype, list(shape))
                for each in filter(None, (name, more))
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 3])],
            [onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    return bytes(made.SerializeToString())


def partly_quantized() -> bytes:
    """A layer of floats between 8-bit tensors: each color times a weight of its own."""
    constants = {
        "weights": np.array([1, 0.0035, -1], np.float32).reshape(3, 1, 1, 1),
        "bias": np.zeros(3, np.float32),
        "one": np.float32(1),
        "step": np.float32(0.8),
        "zero": np.uint8(0),
        "axes": np.array([2, 3], np.int64),
    }
    make = helper.make_node
    nodes = [
        make("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        make("DequantizeLinear", ["planes", "one", "zero"], ["values"]),
        make("Conv", ["values", "weights", "bias"], ["weighted"], group=3),
        make("QuantizeLinear", ["weighted", "step", "zero"], ["steps"]),
        make("DequantizeLinear", ["steps", "step", "zero"], ["rounded"]),
        make("ReduceMean", ["rounded", "axes"], ["logits"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "partly",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in constants.items()
        ],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(made, opset_imports=[opset], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_layer_that_was_left_in_floats_is_computed_in_floats():
    """ONNX Runtime would round its weights to one scale, the small ones to nothing."""
    session = Session.load(partly_quantized(), threads=1)

    logits = session.run(np.full((1, 8, 8, 3), 200, np.uint8))

    assert logits[0].tolist() == pytest.approx([200, 0.8, 0])


def test_a_graph_that_keeps_the_contract_is_loaded():
    """Its shapes are known before anything is run."""
    session = Session.load(graph(classes=5), threads=1)

    assert (session.shape, session.logits, session.threads) == ((8, 8, 3), 5, 1)
    assert (session.device, session.providers) == ("cpu", ("CPUExecutionProvider",))
    assert not session.has_class_maps


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"name": "image"}, r"inputs are \{'image'.*; one is needed: 'pixels'"),
        (
            {"dtype": TensorProto.FLOAT},
            r"inputs are .*tensor\(float\).*tensor\(uint8\)",
        ),
        ({"output": "scores"}, r"outputs are \{'scores'.*'logits', tensor\(float\)"),
        ({"shape": (1, 8, 8, 3)}, r"maps \[1, 8, 8, 3\] to .* only N dynamic"),
        ({"shape": ("N", "H", 8, 3)}, "only N dynamic"),
        ({"more": "mask"}, r"inputs are .*'mask'.*; one is needed: 'pixels'"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(broken, message):
    """Naming what it has and what is needed, before an image meets it."""
    with pytest.raises(BundleError, match=message):
        Session.load(model(**broken), threads=1)


@pytest.mark.parametrize("content", [b"", b"no graph", graph()[:-40]])
def test_bytes_that_are_no_graph_are_a_session_error(content):
    """ONNX Runtime raises a dozen types without a common root."""
    with pytest.raises(SessionError, match="ONNX Runtime"):
        Session.load(content, threads=1)


@pytest.mark.parametrize(
    "location", ["secret", "../here/secret", "/etc/hostname", "../../etc/hostname"]
)
def test_a_graph_cannot_reach_for_other_files(tmp_path, monkeypatch, location):
    """Weights outside the graph would escape its hash, also from where we run."""
    tmp_path = tmp_path / "here"
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    outside = onnx.load_from_string(graph())
    [weights] = [i for i in outside.graph.initializer if i.name == "weights"]
    (tmp_path / "secret").write_bytes(weights.raw_data)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)

    with pytest.raises(SessionError):
        Session.load(outside.SerializeToString(), threads=1)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 9, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_a_batch_of_another_kind_is_a_session_error(batch):
    """Never a crash, never a wrong answer."""
    with pytest.raises(SessionError):
        Session.load(graph(), threads=1).run(batch)


def test_a_run_that_fails_leaves_the_session_whole():
    """The next batch is answered as if nothing had been."""
    session = Session.load(graph(misbehaves=True), threads=1)
    poisoned = pixels()
    poisoned[0, 0, 0, 0] = POISON
    before = session.run(pixels())

    with pytest.raises(SessionError, match="ONNX Runtime"):
        session.run(poisoned)

    assert (session.run(pixels()) == before).all()


def test_class_maps_are_refused_where_there_are_none():
    """Not an empty picture."""
    with pytest.raises(SessionError, match="no class-activation maps"):
        Session.load(graph(), threads=1).run_with_class_maps(pixels())


@pytest.mark.parametrize("size", range(1, 9))
def test_an_image_gets_the_same_logits_in_any_company(size):
    """Batching is the server's choice and must not show."""
    session = Session.load(graph(), threads=1)
    batch = pixels(8)

    together = session.run(batch[:size])

    alone = np.concatenate([session.run(one[None]) for one in batch[:size]])
    assert together.dtype == np.float32
    assert np.abs(together - alone).max() <= 1e-5


def test_two_threads_share_a_session():
    """Each gets the answers to its own batches."""
    session = Session.load(graph(), threads=1)
    batches = [pixels(2, seed) for seed in range(60)]
    expected = [session.run(batch) for batch in batches]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(session.run, batches))

    assert all((f == e).all() for f, e in zip(found, expected, strict=True))


def test_threads_come_from_what_the_process_is_granted():
    """Not from the host's count of cores."""
    assert Session.load(graph()).threads == available_cores()
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("threads", [0, -1, 1_000_000])
def test_so_many_threads_as_cannot_be_are_refused(threads):
    """ONNX Runtime would take its own number, or start them for ever."""
    message = f"threads is {threads}; 1 to 4096 are allowed"
    with pytest.raises(SessionError, match=message):
        Session.load(graph(), threads=threads)


def test_idle_threads_do_not_spin():
    """Spinning burns a second core for 3 % of latency."""
    options = Session.load(graph(), threads=2)._session.get_session_options()

    for key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        assert options.get_session_config_entry(key) == "0"
    assert options.intra_op_num_threads == 2


@pytest.mark.parametrize(
    "message",
    [
        "Failed to allocate memory for requested buffer of size 1073741824",
        "CUDA failure 2: out of memory",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA failure: cudaErrorMemoryAllocation",
        "std::bad_alloc: bad alloc",
    ],
)
def test_out_of_memory_is_told_apart(message):
    """A smaller batch may fit, so the engine must know."""
    assert isinstance(_translated(RuntimeError(message)), OutOfMemoryError)
    assert not isinstance(_translated(RuntimeError("other")), OutOfMemoryError)
    other = RuntimeError("CUDA failure 209: no kernel image is available")
    assert not isinstance(_translated(other), OutOfMemoryError)


@pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")
@pytest.mark.filterwarnings("ignore:Specified provider")  # what a CPU build says
def test_what_onnx_runtime_says_of_libraries_is_no_output(monkeypatch, capsys):
    """It prints which of CUDA's it cannot load, and `classify` prints JSON."""
    monkeypatch.setattr(
        onnxruntime,
        "preload_dlls",
        lambda: sys.stdout.write("Failed to load libcublas.so\n"),
    )

    with pytest.raises(DeviceUnavailableError):
        Session.load(model(), device="cuda")

    assert capsys.readouterr() == ("", "Failed to load libcublas.so\n")


def resident_mib() -> float:
    """Memory of this process that is really there."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_what_large_runs_took_is_given_back(repository):
    """Six models that were measured at the start held 1.2 GB of activations."""
    bundle = load_bundle(repository / "models" / "imagenet")
    variant = bundle.graph(Precision.FP32)
    session = Session.load(bundle.read_graph(variant), threads=1)
    batch = np.zeros((16, *session.shape), np.uint8)
    before_mib = resident_mib()
    session.run(batch)
    taken_mib = resident_mib() - before_mib
    session.give_back()

    assert resident_mib() - before_mib < taken_mib / 2
    assert session.run(batch).shape == (16, session.logits)  # it takes it again
