"""bundle → **Classifier**: an image in, an answer out; the whole flow on one screen."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier.bundle import Bundle, load_bundle
from classifier.decode import DEFAULT_LIMITS, DecodeLimits, ImageInfo
from classifier.device import DeviceChoice, choose_device
from classifier.errors import ImageDecodeError, ImageError
from classifier.explanation import Explanation, explain
from classifier.hardware import available_cores
from classifier.manifest import GraphVariant, Manifest, Precision
from classifier.postprocess import Answer, Postprocessor
from classifier.preprocess import Preprocessed, preprocess, preprocess_image
from classifier.session import Session
from classifier.variant import choose_variant, load_session

ImageLike = bytes | str | Path | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Classification(Answer):
    """An answer, with what was seen of the image."""

    image: ImageInfo
    warnings: tuple[str, ...]


class Classifier:
    """One model, loaded and proven: `Classifier.load("models/imagenet")`.

    `classify` may be called from several threads.
    """

    def __init__(
        self,
        bundle: Bundle,
        session: Session,
        variant: GraphVariant,
        *,
        limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> None:
        self.bundle = bundle
        self.session = session
        self.variant = variant
        self.limits = limits
        self.postprocessor = Postprocessor(bundle.manifest)

    @property
    def manifest(self) -> Manifest:
        """The bundle's contract."""
        return self.bundle.manifest

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        version: int | None = None,
        precision: Precision | str = "auto",
        device: DeviceChoice = "auto",
        threads: int | None = None,
        limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> Self:
        """Load a bundle and replay its golden examples.

        Args:
            path: a version's folder, or a model's folder (then the newest version).
            version: another version than the newest.
            precision: "fp32", "fp16", "int8", or "auto" for the best on the device.
            device: "cpu", "cuda" (refuses to fall back), or "auto".
            threads: of one run; None takes what affinity and cgroup grant.
            limits: bounds on what an image may declare.

        Raises:
            BundleError: the bundle is not whole, or answers differently here.
            SessionError: ONNX Runtime or the device refuses, or one of these is out of
                range.
        """
        bundle = load_bundle(Path(path), version)
        real_device, _ = choose_device(device)
        variant = choose_variant(bundle, precision, real_device)
        session = load_session(bundle, variant, device=real_device, threads=threads)
        return cls(bundle, session, variant, limits=limits)

    def classify(
        self,
        image: ImageLike,
        *,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> Classification:
        """Classify one image: file bytes, a path, a Pillow image, or an array.

        An array is uint8, [H, W, 3] or gray [H, W].

        Raises:
            ImageError: the image cannot be used; the subclass says why.
            RequestError: top_k or threshold is out of this model's range.
            SessionError: the run fails, or its logits are no numbers.
        """
        self.postprocessor.check(top_k=top_k, threshold=threshold)
        ready = self.preprocess(image)
        logits = self.session.run(ready.pixels[None])  # float32 [1, K]
        scores = self.postprocessor.scores(logits)[0]  # float32 [K]
        answer = self.postprocessor.answer(scores, top_k=top_k, threshold=threshold)
        return classification(answer, ready)

    def explain(self, image: ImageLike) -> Explanation | None:
        """Say where the best label is in an image; None if no label is good enough.

        Raises:
            ImageError: as `classify`.
            SessionError: as `classify`, or this model's graph has no class maps.
        """
        ready = self.preprocess(image)
        logits, class_maps = self.session.run_with_class_maps(ready.pixels[None])
        answer = self.postprocessor.answer(self.postprocessor.scores(logits)[0])
        return explain(answer, class_maps[0], ready.image, self.manifest)

    def classify_many(
        self,
        images: Iterable[ImageLike],
        *,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> Iterator[Classification | ImageError]:
        """Classify a stream of images, in order, a bad one answered by its error.

        Each core decodes and runs whole images on its own: on a CPU that is faster
        than batches (`docs/performance.md`). At most four images a core are ahead of
        the consumer.

        Raises:
            RequestError: at once, if top_k or threshold is out of this model's range.
            SessionError: by the iterator, as `classify`; this ends it.
        """
        self.postprocessor.check(top_k=top_k, threshold=threshold)
        return self._answers(images, top_k=top_k, threshold=threshold)

    def _answers(
        self,
        images: Iterable[ImageLike],
        *,
        top_k: int | None,
        threshold: float | None,
    ) -> Iterator[Classification | ImageError]:
        """What `classify_many` gives; nothing is read before the first is asked for."""
        cores = available_cores()
        worker = self if self.session.device == "cuda" else self.with_threads(1)

        def one(image: ImageLike) -> Classification | ImageError:
            try:
                return worker.classify(image, top_k=top_k, threshold=threshold)
            except ImageError as error:
                return error

        source = iter(images)
        pool = ThreadPoolExecutor(cores, thread_name_prefix="classify")
        try:
            ahead: deque[Future[Classification | ImageError]] = deque(
                pool.submit(one, image) for image in islice(source, 4 * cores)
            )
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(pool.submit(one, image) for image in islice(source, 1))
        finally:
            pool.shutdown(cancel_futures=True)

    def with_threads(self, threads: int) -> Self:
        """The same classifier on a session of that many threads a run."""
        if threads == self.session.threads:
            return self
        session = Session.load(
            self.bundle.read_graph(self.variant),
            device=self.session.device,
            threads=threads,
        )
        return type(self)(self.bundle, session, self.variant, limits=self.limits)

    def preprocess(self, image: ImageLike) -> Preprocessed:
        """Any accepted kind of image → pixels. Raises ImageError."""
        spec = self.manifest.preprocess
        match image:
            case bytes():
                return preprocess(image, spec, limits=self.limits)
            case str() | Path():
                return preprocess(read_image(Path(image)), spec, limits=self.limits)
            case Image.Image():
                return preprocess_image(image, spec, limits=self.limits)
            case np.ndarray():
                opened = array_image(image)
                return preprocess_image(opened, spec, limits=self.limits)
        raise ImageDecodeError(
            f"cannot classify a {type(image).__name__}; bytes, a path, a Pillow image "
            "or a uint8 array [H, W, 3] or [H, W] is needed"
        )


def classification(answer: Answer, ready: Preprocessed) -> Classification:
    """Join an answer to the image that it is of."""
    return Classification(
        task=answer.task,
        predictions=answer.predictions,
        decision=answer.decision,
        abstained=answer.abstained,
        groups=answer.groups,
        image=ready.image,
        warnings=ready.warnings,
    )


def read_image(path: Path) -> bytes:
    """A file's bytes. Raises ImageDecodeError naming the file."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise ImageDecodeError(f"cannot read {path}: {reason}") from error


def array_image(array: npt.NDArray[np.uint8]) -> Image.Image:
    """uint8 [H, W] or [H, W, 3] → image. Raises ImageDecodeError."""
    match array.shape:
        case (_, _) | (_, _, 3) if array.dtype == np.uint8 and array.size:
            return Image.fromarray(np.ascontiguousarray(array))
    raise ImageDecodeError(
        f"the array is {array.dtype} {list(array.shape)}; "
        "uint8 [H, W] or [H, W, 3] is needed"
    )
