"""what was asked for + what is there → **the device**, and why.

A build with CUDA and a device file promise nothing: the driver may be too old. So CUDA
is tried on a tiny graph before it is taken; see `docs/decisions.md`.
"""

import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from classifier.errors import DeviceUnavailableError, SessionError
from classifier.runtime import onnxruntime
from classifier.session import CUDA_PROVIDER, Device, Session

DeviceChoice = Literal["auto", "cpu", "cuda"]

# pixels uint8 [N, 4, 4, 4] → Cast, Conv, MaxPool, Flatten, MatMul → logits float32
# [N, 2]: what networks need of CUDA, cuDNN and cuBLAS, which may be there one by one.
# Written out, as there is no `onnx` where images are served; a test makes it again.
TRIAL = (
    b"\x08\n:\xc4\x03"
    b'\n?\n\x07filters\x12\x06kernel"\x0fConstantOfShape*\x1b\n\x05value*\x0f\x08'
    b'\x01\x10\x01"\x04\x00\x00\x80?B\x03one\xa0\x01\x04'
    b'\n=\n\x04head\x12\x07weights"\x0fConstantOfShape*\x1b\n\x05value*\x0f\x08\x01'
    b'\x10\x01"\x04\x00\x00\x80?B\x03one\xa0\x01\x04'
    b'\n!\n\x06pixels\x12\x06values"\x04Cast*\t\n\x02to\x18\x01\xa0\x01\x02'
    b'\n/\n\x06values\n\x06kernel\x12\x04sums"\x04Conv*\x11\n\x04pads@\x01@\x01@'
    b"\x01@\x01\xa0\x01\x07"
    b'\nA\n\x04sums\x12\x07largest"\x07MaxPool*\x15\n\x0ckernel_shape@\x02@\x02\xa0'
    b"\x01\x07*\x10\n\x07strides@\x02@\x02\xa0\x01\x07"
    b'\n\x1c\n\x07largest\x12\x08features"\x07Flatten'
    b'\n#\n\x08features\n\x07weights\x12\x06logits"\x06MatMul'
    b"\x12\x05trial"
    b"*\x13\x08\x04\x10\x07:\x04\x04\x04\x03\x03B\x07filters"
    b"*\x0e\x08\x02\x10\x07:\x02\x10\x02B\x04head"
    b"Z!\n\x06pixels\x12\x17\n\x15\x08\x02\x12\x11\n\x03\x12\x01N\n\x02\x08\x04\n"
    b"\x02\x08\x04\n\x02\x08\x04"
    b"b\x19\n\x06logits\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x02"
    b"B\x04\n\x00\x10\x14"
)


def choose_device(choice: DeviceChoice) -> tuple[Device, str]:
    """The device to use and one sentence saying why.

    Raises:
        DeviceUnavailableError: "cuda" was asked for and cannot be used, or it is none
            of the choices.
    """
    choices = get_args(DeviceChoice)
    if choice not in choices:
        raise DeviceUnavailableError(
            f"device is {choice!r}; allowed are {', '.join(choices)}"
        )
    if choice == "cpu":
        return "cpu", "the CPU was asked for"
    problem = cuda_problem() or trial_problem()
    if problem is None:
        return "cuda", "CUDA works"
    if choice == "cuda":
        raise DeviceUnavailableError(f"CUDA was asked for, but {problem}")
    return "cpu", f"using the CPU: {problem}"


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here; None where an attempt is worth making.

    `get_available_providers` says only what was compiled in, so the driver is looked
    for as well. Whether a graph really runs there is tried by `choose_device`.
    """
    if CUDA_PROVIDER[0] not in onnxruntime.get_available_providers():
        return "this build of ONNX Runtime has no CUDA (extra 'gpu' not installed)"
    if sys.platform != "win32" and not has_device_file(Path("/dev")):
        return "no NVIDIA device is visible (/dev/nvidia0 … or /dev/dxg)"
    return None


def has_device_file(folder: Path) -> bool:
    """Whether there is an NVIDIA device, of any number, or that of WSL.

    A container that was given the second GPU of its host has no `nvidia0`.
    """
    return any(folder.glob("nvidia[0-9]*")) or (folder / "dxg").exists()


def trial_problem() -> str | None:
    """What ONNX Runtime says to a tiny graph on CUDA; None where it runs.

    The driver may be too old for it, or CUDA_VISIBLE_DEVICES hide every device.
    """
    try:
        session = Session.load(TRIAL, device="cuda", threads=1)
        session.run(np.zeros((1, *session.shape), np.uint8))
    except SessionError as error:
        return str(error)
    return None
