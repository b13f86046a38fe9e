"""what is loaded → what the Open Inference Protocol **tells of it**."""

from collections.abc import Sequence

from classifier.manifest import MAX_VERSION_DIGITS, Manifest
from service.catalog import Catalog, CatalogEntry
from service.errors import ModelNotFoundError, shown
from service.oip import shapes
from service.oip.request import IMAGE, LOGITS, PIXELS, SCORES

ANY = -1  # N

# Of Triton's extensions those that are whole. Not `model_repository`, as models are
# neither loaded nor unloaded here, nor `schedule_policy`: `priority` changes nothing.
EXTENSIONS = ("classification", "model_configuration", "binary_tensor_data")
PLATFORM, BACKEND = "onnxruntime_onnx", "onnxruntime"


def find_model(catalog: Catalog, name: str, version: str | None = None) -> CatalogEntry:
    """The model of a path; its newest version when none is named.

    Raises:
        ModelNotFoundError: naming what is loaded.
    """
    if version is None:
        return catalog.find(name)
    whole = version.isascii() and version.isdigit()
    if not whole or len(version) > MAX_VERSION_DIGITS:
        raise ModelNotFoundError(
            f"version {shown(version)} is no whole number of at most "
            f"{MAX_VERSION_DIGITS} digits, as versions are"
        )
    return catalog.find(name, int(version))


def describe_server(version: str) -> shapes.ServerMetadata:
    """This service."""
    return shapes.ServerMetadata(
        name="linnaeus", version=version, extensions=list(EXTENSIONS)
    )


def describe_model(manifest: Manifest, versions: Sequence[int]) -> shapes.ModelMetadata:
    """The tensors of a model."""
    tensor = shapes.TensorMetadata
    return shapes.ModelMetadata(
        name=manifest.name,
        versions=[str(version) for version in versions],
        platform=PLATFORM,
        inputs=[
            tensor(name=IMAGE, datatype="BYTES", shape=[ANY]),
            tensor(
                name=PIXELS,
                datatype="UINT8",
                shape=[ANY, *manifest.preprocess.shape],
            ),
        ],
        outputs=[
            tensor(name=name, datatype="FP32", shape=[ANY, size])
            for name, size in output_sizes(manifest).items()
        ],
    )


def configure_model(manifest: Manifest, *, max_items: int) -> shapes.ModelConfig:
    """A model in the words of Triton's configuration."""
    return shapes.ModelConfig(
        name=manifest.name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=max_items,
        input=[
            shapes.ConfigInput(
                name=IMAGE,
                data_type="TYPE_STRING",
                format="FORMAT_NONE",
                dims=[],
                optional=True,
            ),
            shapes.ConfigInput(
                name=PIXELS,
                data_type="TYPE_UINT8",
                format="FORMAT_NHWC",
                dims=list(manifest.preprocess.shape),
                optional=True,
            ),
        ],
        output=[
            shapes.ConfigOutput(name=name, data_type="TYPE_FP32", dims=[size])
            for name, size in output_sizes(manifest).items()
        ],
        dynamic_batching={},
    )


def output_sizes(manifest: Manifest) -> dict[str, int]:
    """Columns of each output; see `response.py`."""
    return {SCORES: len(manifest.labels), LOGITS: manifest.logits}


def list_models(catalog: Catalog, trouble: str | None) -> list[shapes.IndexEntry]:
    """Every loaded version; `trouble` is what keeps all of them from serving."""
    return [
        shapes.IndexEntry(
            name=model.manifest.name,
            version=str(model.manifest.version),
            state="READY" if trouble is None else "UNAVAILABLE",
            reason=trouble or "",
        )
        for model in catalog
    ]
