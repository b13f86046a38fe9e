"""settings → **bundles** to serve, each under the name of its manifest."""

import os
from pathlib import Path

from classifier.bundle import Bundle, list_bundles, load_bundle, resolve
from classifier.errors import BundleError
from classifier.manifest import MAX_VERSION_DIGITS
from service.errors import shown
from service.settings import Settings


def find_bundles(settings: Settings) -> list[Bundle]:
    """The bundles that the settings name, or the newest of every model, each once.

    Raises:
        BundleError: one of them is not whole or a link to another, or there is none.
    """
    root = settings.models
    if not root.is_dir():
        raise BundleError(
            f"{root} is no folder; --models or LINNAEUS_MODELS names the one with "
            "bundles"
        )
    names = settings.load or tuple(list_bundles(root))
    if not names:
        raise BundleError(f"{root} holds no bundle; expected {root}/NAME/VERSION/")
    bundles: dict[str, Bundle] = {}
    for entry in names:
        name, _, version = entry.partition("/")
        if version and not _is_version(version):
            raise BundleError(f"{shown(entry)} names no version; write NAME or NAME/2")
        path = resolve(root / name, int(version) if version else None)
        bundle = load_bundle(path)
        check_no_link(path, bundle)
        bundles[bundle.manifest.full_name] = bundle  # "a,a/2" may name one twice
    return list(bundles.values())


def check_no_link(path: Path, bundle: Bundle) -> None:
    """Raises BundleError for a link by which a bundle seems to have another name.

    It would be loaded a second time, and nobody could ask for it by that name.
    """
    found = Path(os.path.abspath(path)).parts[-2:]
    if found != bundle.folder.parts[-2:]:
        raise BundleError(
            f"{path} is by a link {bundle.folder}; a bundle has no name but that of "
            "its manifest: remove the link, or set LINNAEUS_LOAD without it"
        )


def _is_version(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_VERSION_DIGITS
