"""graph + strategy → **runner**: the ways to run varying batches on a device.

cuDNN plans anew whenever the shape differs from the last call's, so the question is how
to keep shapes still: pad to a few *buckets* in one session; a *session a bucket*, each
of which sees one shape; or such a session with a *CUDA graph*, whose replay plans
nothing. The last two keep their input and output at fixed addresses (I/O binding), fed
from pinned memory. All of them take uint8 [N, H, W, C] and return float32 [N, K].
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from classifier.runtime import onnxruntime
from classifier.session import INPUT, OUTPUT

Batch = npt.NDArray[np.uint8]  # [N, H, W, C]
Logits = npt.NDArray[np.float32]  # [N, K]
Strategy = Literal["exact", "padded", "bound", "session-a-bucket", "graph-a-bucket"]

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
# Which strategies keep their buffers on the device.
BOUND: tuple[Strategy, ...] = ("bound", "session-a-bucket", "graph-a-bucket")
# In which no session sees a change of shape.
STILL: tuple[Strategy, ...] = ("session-a-bucket", "graph-a-bucket")
# ONNX Runtime captures in the second run at the earliest, and replays from the third.
CAPTURE_RUNS = 3


@dataclass(frozen=True, slots=True)
class Options:
    """How a session is made; the CPU ignores what is CUDA's."""

    device: Literal["cpu", "cuda"] = "cuda"
    conv_search: Literal["HEURISTIC", "EXHAUSTIVE", "DEFAULT"] = "HEURISTIC"
    prefer_nhwc: bool = False
    tf32: bool = False

    def provider(self, *, capture: bool) -> Any:
        """The execution provider with its options."""
        if self.device == "cpu":
            return "CPUExecutionProvider"
        return (
            "CUDAExecutionProvider",
            {
                "cudnn_conv_algo_search": self.conv_search,
                "prefer_nhwc": str(int(self.prefer_nhwc)),
                "use_tf32": str(int(self.tf32)),
                "enable_cuda_graph": str(int(capture)),
                "arena_extend_strategy": "kSameAsRequested",
            },
        )


class Runner(Protocol):
    """Runs a batch of any size up to the largest bucket."""

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        ...


def create_session(graph: bytes, options: Options, *, capture: bool = False) -> Any:
    """A session that refuses to fall back to the CPU where CUDA was asked for."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = options.provider(capture=capture)
    session = onnxruntime.InferenceSession(graph, settings, providers=[provider])
    wanted = provider if isinstance(provider, str) else provider[0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"ONNX Runtime fell back to {session.get_providers()[0]}")
    return session


def bucket_of(n: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds n images."""
    for bucket in sorted(buckets):
        if n <= bucket:
            return bucket
    raise ValueError(f"a batch of {n} exceeds the largest bucket, {max(buckets)}")


def pad(batch: Batch, bucket: int) -> Batch:
    """Fill up with zeros to `bucket` images."""
    if len(batch) == bucket:
        return batch
    padded = np.zeros((bucket, *batch.shape[1:]), np.uint8)  # [bucket, H, W, C]
    padded[: len(batch)] = batch
    return padded


class Exact:
    """One session, every batch at its own size: each new size is a new shape."""

    def __init__(self, graph: bytes, options: Options) -> None:
        self._session = create_session(graph, options)

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        logits: Logits = self._session.run([OUTPUT], {INPUT: batch})[0]
        return logits


class Padded(Exact):
    """One session, batches padded to buckets."""

    def __init__(self, graph: bytes, options: Options, buckets: Sequence[int]) -> None:
        super().__init__(graph, options)
        self._buckets = buckets

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        bucket = bucket_of(len(batch), self._buckets)
        return super().run(pad(batch, bucket))[: len(batch)]


class Slot:
    """One bucket's buffers, bound to a session at fixed addresses."""

    def __init__(self, session: Any, bucket: int, options: Options) -> None:
        self._session = session
        shape = [bucket, *session.get_inputs()[0].shape[1:]]  # N, H, W, C
        logits = session.get_outputs()[0].shape[1]  # K
        self._staging = pinned(shape, options.device)
        self._pixels = on_device(shape, np.uint8, options.device)
        self._logits = on_device([bucket, logits], np.float32, options.device)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._pixels)
        self._binding.bind_ortvalue_output(OUTPUT, self._logits)
        self._busy = threading.Lock()

    def run(self, batch: Batch) -> Logits:
        """Copy in, run, copy out; one run at a time."""
        with self._busy:
            self._staging[: len(batch)] = batch
            self._pixels.update_inplace(self._staging)
            self._session.run_with_iobinding(self._binding)
            logits: Logits = self._logits.numpy()[: len(batch)].copy()
        return logits


def on_device(shape: Sequence[int], dtype: Any, device: str) -> Any:
    """An uninitialized tensor on the device."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, device, 0)


def pinned(shape: Sequence[int], device: str) -> Batch:
    """Host memory, uint8, that the GPU can read directly; plain where there is none.

    ONNX Runtime's Python interface allocates no pinned memory; torch does.
    """
    if device == "cpu":
        return np.zeros(shape, np.uint8)
    import torch  # noqa: PLC0415  on a GPU host only

    staging: Batch = torch.zeros(*shape, dtype=torch.uint8, pin_memory=True).numpy()
    return staging


class Bound:
    """Buffers bound for each bucket; sessions shared or not, captured or not."""

    def __init__(
        self, graph: bytes, options: Options, buckets: Sequence[int], strategy: Strategy
    ) -> None:
        self._buckets = sorted(buckets)
        capture = strategy == "graph-a-bucket"
        shared = create_session(graph, options) if strategy == "bound" else None
        self._slots = {}
        for bucket in self._buckets:
            # Several graphs in one session broke its memory (CUDA failure 700).
            session = shared or create_session(graph, options, capture=capture)
            slot = Slot(session, bucket, options)
            self._slots[bucket] = slot
            if capture:  # at start only: another thread's CUDA call would break it
                blank = np.zeros((bucket, *session.get_inputs()[0].shape[1:]), np.uint8)
                for _ in range(CAPTURE_RUNS):
                    slot.run(blank)

    def run(self, batch: Batch) -> Logits:
        """uint8 [N, H, W, C] → float32 [N, K]."""
        return self._slots[bucket_of(len(batch), self._buckets)].run(batch)


def build_runner(
    strategy: Strategy, graph: bytes, options: Options, buckets: Sequence[int]
) -> Runner:
    """The runner of a strategy, warm at no size yet (captured at every, if it does)."""
    if strategy in BOUND:
        return Bound(graph, options, buckets, strategy)
    if strategy == "padded":
        return Padded(graph, options, buckets)
    return Exact(graph, options)
