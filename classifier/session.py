"""graph → **session**: batch uint8 [N, H, W, C] in, logits float32 [N, K] out.

Provider facts behind the choices here: ONNX Runtime falls back to the CPU silently when
CUDA cannot be used, takes the host's cores instead of the container's, and spins its
idle threads; see `docs/decisions.md`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from classifier.errors import (
    BundleError,
    DeviceUnavailableError,
    OutOfMemoryError,
    SessionError,
)
from classifier.hardware import available_cores
from classifier.runtime import onnxruntime

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
Batch = npt.NDArray[np.uint8]  # [N, H, W, C]
Logits = npt.NDArray[np.float32]  # [N, K]
ClassMaps = npt.NDArray[np.float32]  # [N, K, h, w]

INPUT, OUTPUT, CLASS_MAPS = "pixels", "logits", "class_maps"
FATAL_ONLY = 4  # of ONNX Runtime: lesser ones arrive as exceptions, translated here

# It would round weights that the maker of an int8 graph has left in floats, with one
# scale for a whole tensor. Of a depthwise layer that lost a quarter of the answers.
DISABLED_OPTIMIZERS = ("WeightBiasQuantization",)

CUDA_PROVIDER = (
    "CUDAExecutionProvider",
    {
        # EXHAUSTIVE benchmarks anew at every change of shape; see the decisions.
        "cudnn_conv_algo_search": "HEURISTIC",
        # On by default, and rounds to 10 bits of mantissa what was proven in 23.
        "use_tf32": "0",
        # The default doubles the arena at each growth.
        "arena_extend_strategy": "kSameAsRequested",
    },
)
OUT_OF_MEMORY = ("failed to allocate", "out of memory", "bad alloc")

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


@dataclass(frozen=True, slots=True)
class Session:
    """One graph loaded on one device. `run` may be called from several threads."""

    device: Device
    threads: int
    shape: tuple[int, int, int]  # (H, W, C) of `pixels`
    logits: int  # K
    has_class_maps: bool
    _session: Any  # onnxruntime.InferenceSession, which ships no types
    _run_options: Any

    @classmethod
    def load(
        cls, graph: bytes, *, device: Device = "cpu", threads: int | None = None
    ) -> Self:
        """Load a graph from its bytes, so that it cannot reach for other files.

        Args:
            graph: an ONNX model with input `pixels` and output `logits`.
            device: "cuda" refuses to fall back.
            threads: of one run; None takes what affinity and cgroup grant.

        Raises:
            DeviceUnavailableError: CUDA was asked for and does not work.
            SessionError: ONNX Runtime refuses the graph.
            BundleError: the graph's input or outputs break the contract.
        """
        threads = threads or available_cores()
        options = _options(threads, device)
        session = _create(graph, options, device)
        height, width, channels, logits = _check_contract(session)
        outputs = {output.name for output in session.get_outputs()}
        return cls(
            device=device,
            threads=threads,
            shape=(height, width, channels),
            logits=logits,
            has_class_maps=CLASS_MAPS in outputs,
            _session=session,
            _run_options=_run_options() if CLASS_MAPS in outputs else None,
        )

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers really in use, first choice first."""
        return tuple(self._session.get_providers())

    def run(self, batch: Batch) -> Logits:
        """Run a batch, uint8 [N, H, W, C] → float32 [N, K].

        Raises:
            OutOfMemoryError: a smaller batch may fit.
            SessionError: anything else that ONNX Runtime reports.
        """
        logits: Logits = self._run([OUTPUT], batch)[0]
        return logits

    def give_back(self) -> None:
        """Return memory of the host that earlier runs have taken, but for a run of one.

        ONNX Runtime keeps what its largest runs needed, side by side if they were so,
        and that can be a hundred times the graph.
        """
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        blank = np.zeros((1, *self.shape), np.uint8)
        self._session.run([OUTPUT], {INPUT: blank}, options)

    def run_with_class_maps(self, batch: Batch) -> tuple[Logits, ClassMaps]:
        """Run a batch; also class-activation maps, float32 [N, K, h, w].

        Raises:
            SessionError: also when the graph has no class maps, or not finite ones.
        """
        if not self.has_class_maps:
            raise SessionError("this graph has no class-activation maps")
        logits, maps = self._run([OUTPUT, CLASS_MAPS], batch)
        if not (np.isfinite(logits).all() and np.isfinite(maps).all()):
            raise SessionError("the graph gave class maps that are not finite numbers")
        return logits, maps

    def _run(self, outputs: list[str], batch: Batch) -> list[Any]:
        try:
            return list(self._session.run(outputs, {INPUT: batch}, self._run_options))
        except Exception as error:  # border: ORT raises a dozen types without a root
            raise _translated(error) from error


def choose_device(choice: DeviceChoice) -> tuple[Device, str]:
    """The device to use and one sentence saying why.

    Raises:
        DeviceUnavailableError: "cuda" was asked for and cannot be used.
    """
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


def _options(threads: int, device: Device) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    # Spinning burns a second core for 3 % of latency.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _run_options() -> Any:
    """Without this ONNX Runtime computes also the outputs that nobody asked for."""
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _create(graph: bytes, options: Any, device: Device) -> Any:
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        onnxruntime.preload_dlls()
        # cuDNN tells of each plan that it tries in vain, past the session's own logger.
        onnxruntime.set_default_logger_severity(FATAL_ONLY)
        providers.insert(0, CUDA_PROVIDER)
    try:
        session = onnxruntime.InferenceSession(
            graph,
            options,
            providers=providers,
            disabled_optimizers=list(DISABLED_OPTIMIZERS),
            enable_fallback=0,  # it would print the error and go on without CUDA
        )
    except Exception as error:  # border, as above
        raise _translated(error) from error
    if device == "cuda" and session.get_providers()[0] != CUDA_PROVIDER[0]:
        raise DeviceUnavailableError(
            "ONNX Runtime found no way to use CUDA; "
            "driver, CUDA 13 and cuDNN 9 libraries must match its build"
        )
    return session


def _check_contract(session: Any) -> tuple[int, int, int, int]:
    """(H, W, C, K) of a graph that keeps the contract."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    if set(inputs) != {INPUT} or inputs[INPUT].type != "tensor(uint8)":
        found = {name: i.type for name, i in inputs.items()}
        raise BundleError(
            f"the graph's inputs are {found}; one is needed: '{INPUT}', tensor(uint8)"
        )
    if OUTPUT not in outputs or outputs[OUTPUT].type != "tensor(float)":
        found = {name: o.type for name, o in outputs.items()}
        raise BundleError(
            f"the graph's outputs are {found}; '{OUTPUT}', tensor(float) is needed"
        )
    match inputs[INPUT].shape, outputs[OUTPUT].shape:
        case [[batch, int(height), int(width), int(channels)], [_, int(logits)]] if (
            not isinstance(batch, int)
        ):
            if CLASS_MAPS in outputs:
                _check_class_maps(outputs[CLASS_MAPS], logits)
            return height, width, channels, logits
    raise BundleError(
        f"the graph maps {inputs[INPUT].shape} to {outputs[OUTPUT].shape}; "
        "'pixels' must be [N, H, W, C] and 'logits' [N, K], only N dynamic"
    )


def _check_class_maps(output: Any, logits: int) -> None:
    match output.type, output.shape:
        case "tensor(float)", [_, int(classes), _, _] if classes == logits:
            return
    raise BundleError(
        f"the graph's output '{CLASS_MAPS}' is {output.type} {output.shape}; "
        f"tensor(float) [N, {logits}, h, w] is needed"
    )


def _translated(error: Exception) -> SessionError:
    message = str(error)
    if any(sign in message.lower() for sign in OUT_OF_MEMORY):
        return OutOfMemoryError(f"the device is out of memory: {message}")
    return SessionError(f"ONNX Runtime: {message}")
