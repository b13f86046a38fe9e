"""graph → **session**: batch uint8 [N, H, W, C] in, logits float32 [N, K] out.

Provider facts behind the choices here: ONNX Runtime falls back to the CPU silently when
CUDA cannot be used, takes the host's cores instead of the container's, and spins its
idle threads; see `docs/decisions.md`.
"""

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
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
Batch = npt.NDArray[np.uint8]  # [N, H, W, C]
Logits = npt.NDArray[np.float32]  # [N, K]
ClassMaps = npt.NDArray[np.float32]  # [N, K, h, w]

INPUT, OUTPUT, CLASS_MAPS = "pixels", "logits", "class_maps"
# Threads that ONNX Runtime may be told to start: all of them at once, and where there
# are too many it never ends. No machine has more cores.
MAX_THREADS = 4096
NOWHERE = "/dev/null"  # no folder: no file lies below it
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
# In lower case, of ONNX Runtime's arenas, CUDA, cuBLAS and cuDNN.
OUT_OF_MEMORY = (
    *("failed to allocate", "out of memory", "bad alloc"),
    *("cudaerrormemoryallocation", "alloc_failed", "allocation_failed"),
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
            SessionError: ONNX Runtime refuses the graph, or there cannot be so many
                threads.
            BundleError: the graph's input or outputs break the contract.
        """
        if threads is None:
            threads = available_cores()
        if not 1 <= threads <= MAX_THREADS:
            raise SessionError(f"threads is {threads}; 1 to {MAX_THREADS} are allowed")
        options = _options(threads)
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
        logits: Logits = self._run([OUTPUT], batch, self._run_options)[0]
        return logits

    def give_back(self) -> None:
        """Return memory of the host that earlier runs have taken, but for a run of one.

        ONNX Runtime keeps what its largest runs needed, side by side if they were so,
        and that can be a hundred times the graph.
        """
        options = _run_options()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._run([OUTPUT], np.zeros((1, *self.shape), np.uint8), options)

    def run_with_class_maps(self, batch: Batch) -> tuple[Logits, ClassMaps]:
        """Run a batch; also class-activation maps, float32 [N, K, h, w].

        Raises:
            SessionError: also when the graph has no class maps, or not finite ones.
        """
        if not self.has_class_maps:
            raise SessionError("this graph has no class-activation maps")
        logits, maps = self._run([OUTPUT, CLASS_MAPS], batch, self._run_options)
        if not (np.isfinite(logits).all() and np.isfinite(maps).all()):
            raise SessionError("the graph gave class maps that are not finite numbers")
        return logits, maps

    def _run(self, outputs: list[str], batch: Batch, options: Any) -> list[Any]:
        try:
            return list(self._session.run(outputs, {INPUT: batch}, options))
        except Exception as error:  # border: ORT raises a dozen types without a root
            raise _translated(error) from error


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    # Spinning burns a second core for 3 % of latency.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Weights in a file beside a graph of bytes would be sought where the process runs.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", NOWHERE
    )
    return options


def _run_options() -> Any:
    """Without this ONNX Runtime computes also the outputs that nobody asked for."""
    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _create(graph: bytes, options: Any, device: Device) -> Any:
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        with redirect_stdout(sys.stderr):  # it prints what it cannot load
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
