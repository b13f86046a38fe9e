"""name, version → **catalog entry**: what is loaded, and what answers by default."""

from collections.abc import Collection, Iterator, Sequence

from classifier.bundle import default_name
from classifier.errors import RequestError
from classifier.explanation import explain
from classifier.postprocess import Postprocessor
from service.answers import write_answer
from service.contract import LoadedModel, Outcome
from service.errors import (
    InvalidParameterError,
    ModelNotFoundError,
    SettingsError,
    shown,
)
from service.metrics import Metrics, ModelMetrics
from service.parameters import Parameters


class CatalogEntry:
    """One loaded bundle, with everything that its answers need prepared."""

    def __init__(self, loaded: LoadedModel, metrics: Metrics) -> None:
        self.loaded = loaded
        self.manifest = loaded.manifest
        self.key = loaded.key
        self.postprocessor = Postprocessor(loaded.manifest)
        self.metrics = ModelMetrics(metrics, self.key)

    def check(self, parameters: Parameters) -> None:
        """Refuse, before any work, what this model does not allow.

        Raises:
            InvalidParameterError: naming the value and what is allowed.
        """
        try:
            self.postprocessor.check(
                top_k=parameters.top_k, threshold=parameters.threshold
            )
        except RequestError as error:
            raise InvalidParameterError(str(error)) from error
        if parameters.explain and not self.loaded.explains:
            raise InvalidParameterError(
                f"explain is not available for model {self.manifest.name!r}: its graph "
                "has no output class_maps"
            )

    def answer(
        self, outcome: Outcome, parameters: Parameters, *, request_id: str
    ) -> bytes:
        """The outcome of one image as the JSON of its answer."""
        answer = self.postprocessor.answer(
            outcome.scores, top_k=parameters.top_k, threshold=parameters.threshold
        )
        self.metrics.answered(outcome.timing)
        explanation = None
        if outcome.class_maps is not None:
            explanation = explain(
                answer, outcome.class_maps, outcome.image, self.manifest
            )
        return write_answer(
            self.manifest,
            answer,
            outcome.image,
            outcome.warnings,
            request_id=request_id,
            explanation=explanation,
        )


class Catalog:
    """The entry of every loaded model, found by name and version."""

    def __init__(self, entries: Sequence[CatalogEntry], *, default: str | None) -> None:
        self._versions: dict[str, dict[int, CatalogEntry]] = {}
        for model in sorted(entries, key=lambda model: model.key):
            name, version = model.key
            self._versions.setdefault(name, {})[version] = model
        self.default = choose_default(self._versions, default)

    def __iter__(self) -> Iterator[CatalogEntry]:
        """By name, then by version."""
        return (m for versions in self._versions.values() for m in versions.values())

    def versions(self, name: str) -> list[int]:
        """Loaded versions of a name, oldest first."""
        return list(self._versions[name])

    def find(self, name: str | None, version: int | None = None) -> CatalogEntry:
        """The model asked for; its newest version when none is asked for.

        Raises:
            InvalidParameterError: several models are loaded and none is the default.
            ModelNotFoundError: naming what is loaded.
        """
        if name is None:
            if self.default is None:
                raise InvalidParameterError(
                    f"model is missing; loaded are {', '.join(self._versions)}"
                )
            name = self.default
        versions = self._versions.get(name)
        if versions is None:
            raise ModelNotFoundError(
                f"model {shown(name)} is not loaded; loaded are "
                f"{', '.join(self._versions)}"
            )
        if version is None:
            return versions[max(versions)]
        if version not in versions:
            raise ModelNotFoundError(
                f"model {name!r} has no version {version} loaded; loaded are "
                f"{', '.join(map(str, versions))}"
            )
        return versions[version]


def choose_default(loaded: Collection[str], wanted: str | None) -> str | None:
    """The model of a request that names none, if there is one.

    Raises:
        SettingsError: that which is wanted is not loaded.
    """
    if wanted is not None and wanted not in loaded:
        raise SettingsError(
            f"LINNAEUS_DEFAULT_MODEL is {wanted!r}; loaded are {', '.join(loaded)}"
        )
    return wanted or default_name(loaded)
