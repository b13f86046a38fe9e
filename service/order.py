"""leader → **order** → member: what it is started with, and from which bundles."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.manifest import Manifest
from service.errors import BundleChangedError
from service.neighbors import page_path
from service.settings import Settings

REFUSED = 3  # the status of a member that ends because its bundles are not the leader's


@dataclass(frozen=True, slots=True)
class Order:
    """What a member is started with."""

    number: int
    folder: Path
    changes: Mapping[str, object]  # of the settings
    bundles: Mapping[str, str]  # what the leader has loaded; see `fingerprints`
    host: Mapping[str, object] | None = None  # where the engine is, if not its own
    # by NAME/VERSION, of an engine of its own: `auto` goes by the clock, and whoever
    # takes the connection must not decide what is answered
    precisions: Mapping[str, str] | None = None
    memory: int | None = None  # descriptor of the slots that it shares with the host

    @property
    def name(self) -> str:
        """What the member calls itself."""
        return f"member-{self.number}"

    @property
    def page(self) -> Path:
        """Where it offers its page; there while it serves."""
        return page_path(self.folder, self.name)

    def said(self, settings: Settings, listener: int) -> dict[str, object]:
        """The line that the member reads."""
        # the newest version of a model may be another by now
        load = {"load": list(self.bundles)}
        return {
            "settings": settings.model_dump(mode="json") | dict(self.changes) | load,
            "bundles": dict(self.bundles),
            "listener": listener,
            "number": self.number,
            "name": self.name,
            "host": self.host,
            "precisions": self.precisions,
            "memory": self.memory,
        }


def fingerprints(manifests: Sequence[Manifest]) -> dict[str, str]:
    """NAME/VERSION of each bundle → SHA-256 of its manifest, which has its graphs'."""
    return {
        manifest.full_name: hashlib.sha256(
            manifest.model_dump_json().encode()
        ).hexdigest()
        for manifest in manifests
    }


def check_same(manifests: Sequence[Manifest], bundles: Mapping[str, str]) -> None:
    """Raises BundleChangedError if one is not of what the leader has loaded."""
    for name, fingerprint in fingerprints(manifests).items():
        if bundles.get(name) != fingerprint:
            raise BundleChangedError(
                f"{name} has changed since the service started; restart the service, "
                "or write what is new as another version"
            )
