"""The device that is taken really works, and why it was taken is said."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from classifier.device import TRIAL, choose_device, cuda_problem, has_device_file
from classifier.errors import DeviceUnavailableError
from classifier.session import Session

without_cuda = pytest.mark.skipif(cuda_problem() is None, reason="CUDA works here")


@without_cuda
def test_cuda_never_falls_back_in_silence():
    """`auto` says why it chose the CPU, and `cuda` refuses."""
    device, reason = choose_device("auto")

    assert (device, reason) == ("cpu", f"using the CPU: {cuda_problem()}")
    with pytest.raises(DeviceUnavailableError, match="CUDA was asked for, but "):
        choose_device("cuda")


@without_cuda
@pytest.mark.filterwarnings("ignore:Specified provider")  # what a CPU build says
def test_a_device_that_is_there_and_does_not_work_is_none(monkeypatch):
    """Its driver may be too old: `auto` takes the CPU and says why, `cuda` refuses."""
    monkeypatch.setattr("classifier.device.cuda_problem", lambda: None)

    device, reason = choose_device("auto")

    assert device == "cpu"
    assert reason.startswith("using the CPU: ONNX Runtime found no way to use CUDA")
    with pytest.raises(DeviceUnavailableError, match="was asked for, but ONNX Runtime"):
        choose_device("cuda")


def test_the_graph_that_tries_a_device_is_one_that_keeps_the_contract():
    """The bytes in the source are what `onnx` makes, and they run."""
    node, floats = helper.make_node, TensorProto.FLOAT
    one = helper.make_tensor("one", floats, [1], [1.0])
    made = helper.make_model(
        helper.make_graph(
            [
                node("ConstantOfShape", ["filters"], ["kernel"], value=one),
                node("ConstantOfShape", ["head"], ["weights"], value=one),
                node("Cast", ["pixels"], ["values"], to=floats),
                node("Conv", ["values", "kernel"], ["sums"], pads=[1, 1, 1, 1]),
                node(
                    "MaxPool",
                    ["sums"],
                    ["largest"],
                    kernel_shape=[2, 2],
                    strides=[2, 2],
                ),
                node("Flatten", ["largest"], ["features"]),
                node("MatMul", ["features", "weights"], ["logits"]),
            ],
            "trial",
            [
                helper.make_tensor_value_info(
                    "pixels", TensorProto.UINT8, ["N", 4, 4, 4]
                )
            ],
            [helper.make_tensor_value_info("logits", floats, ["N", 2])],
            [
                helper.make_tensor("filters", TensorProto.INT64, [4], [4, 4, 3, 3]),
                helper.make_tensor("head", TensorProto.INT64, [2], [16, 2]),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )

    logits = Session.load(TRIAL, threads=1).run(np.full((2, 4, 4, 4), 7, np.uint8))

    assert onnx.load_from_string(TRIAL) == made
    # Of each quarter a window that lies wholly inside: 16 of 9 pixels in 4 channels.
    assert logits.tolist() == [[16 * 9 * 4 * 7] * 2] * 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["nvidia0"], True),
        (["nvidia1", "nvidiactl"], True),  # of a container with the second GPU
        (["dxg"], True),
        (["nvidiactl", "nvidia-uvm", "nvidia-caps", "null"], False),
    ],
)
def test_a_device_is_found_by_its_file_whatever_its_number(tmp_path, names, expected):
    """A driver without a device has files too."""
    for name in names:
        (tmp_path / name).touch()

    assert has_device_file(tmp_path) is expected


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "CPU", "", None])
def test_a_device_of_another_name_is_refused(name):
    """It would be `auto`, and who asked for a GPU might never know that it is none."""
    with pytest.raises(DeviceUnavailableError, match=f"device is {name!r}; allowed"):
        choose_device(name)


def test_the_cpu_can_be_asked_for():
    """Also where there is a GPU."""
    assert choose_device("cpu")[0] == "cpu"
