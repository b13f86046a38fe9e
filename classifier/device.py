"""what was asked for + what is there → **the device**, and why.

A build with CUDA and a device file promise nothing: the driver may be too old. So CUDA
is tried on a tiny graph before it is taken; see `docs/decisions.md`.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from classifier.errors import DeviceUnavailableError, SessionError
from classifier.runtime import onnxruntime
from classifier.session import CUDA_PROVIDER, Device, Session

DeviceChoice = Literal["auto", "cpu", "cuda"]

# pixels uint8 [N, 1, 1, 1], cast and flattened → logits float32 [N, 1]. Written out,
# because there is no `onnx` where images are served; a test makes it again.
TRIAL = (
    b"\x08\n:\x83\x01"  # IR version 10; the graph
    b'\n!\n\x06pixels\x12\x06values"\x04Cast*\t\n\x02to\x18\x01\xa0\x01\x02'
    b'\n\x19\n\x06values\x12\x06logits"\x07Flatten\x12\x05trial'
    b"Z!\n\x06pixels\x12\x17\n\x15\x08\x02\x12\x11\n\x03\x12\x01N"
    b"\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01"
    b"b\x19\n\x06logits\x12\x0f\n\r\x08\x01\x12\t\n\x03\x12\x01N\n\x02\x08\x01"
    b"B\x04\n\x00\x10\x14"  # operator set 20
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
    if not has_device_file(Path("/dev")):
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
