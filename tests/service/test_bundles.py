"""Which bundles are loaded is what the settings say, or an error says why not."""

import pytest

from classifier.errors import BundleError
from service.bundles import find_bundles
from service.settings import Settings
from tests.synthetic import make_bundle


@pytest.mark.parametrize("version", ["x", "-1", "1.0", "9" * 19, "9" * 5000])
def test_what_is_no_version_is_told_of(tmp_path, version):
    """However long it is."""
    make_bundle(tmp_path, "colors")
    settings = Settings(models=tmp_path, load=(f"colors/{version}",))

    with pytest.raises(BundleError, match="names no version; write NAME or NAME/2"):
        find_bundles(settings)


@pytest.mark.parametrize(("asked", "found"), [("colors", 10), ("colors/9", 9)])
def test_a_bundle_is_the_newest_version_or_the_one_named(tmp_path, asked, found):
    """By its number: as a text, version 10 would come before 9."""
    for version in (9, 10):
        make_bundle(tmp_path, "colors", version=version)

    (bundle,) = find_bundles(Settings(models=tmp_path, load=(asked,)))

    assert bundle.manifest.version == found


def test_a_folder_of_bundles_that_is_not_there_is_told_with_the_option(tmp_path):
    """Whoever serves elsewhere than in the checkout sees this first."""
    settings = Settings(models=tmp_path / "models")

    with pytest.raises(BundleError, match="models is no folder; --models or LINNAEUS_"):
        find_bundles(settings)


@pytest.mark.parametrize(
    ("link", "target", "load"),
    [
        ("alias", "colors", ()),
        ("alias", "colors", ("alias",)),
        ("colors/2", "1", ()),
        ("colors/2", "1", ("colors/2",)),
    ],
)
def test_a_link_gives_a_bundle_no_second_name(tmp_path, link, target, load):
    """It was loaded twice, and by the other name nobody could ask for it."""
    make_bundle(tmp_path, "colors")
    (tmp_path / link).symlink_to(target)

    with pytest.raises(BundleError, match=f"{link}.* is by a link .*1; a bundle"):
        find_bundles(Settings(models=tmp_path, load=load))


def test_a_link_by_the_name_of_its_bundle_is_as_good_as_a_folder(tmp_path, monkeypatch):
    """Bundles may lie on another disk, and the folder of all of them, too."""
    make_bundle(tmp_path / "disk", "colors")
    models = tmp_path / "models"
    models.mkdir()
    (models / "colors").symlink_to(tmp_path / "disk" / "colors")
    (tmp_path / "link").symlink_to(models)
    monkeypatch.chdir(models)

    found = [
        bundle.manifest.full_name
        for root in (models, tmp_path / "link", ".", "../link")
        for bundle in find_bundles(Settings(models=root))
    ]

    assert found == ["colors/1"] * 4


def test_a_bundle_that_is_named_twice_is_loaded_once(tmp_path):
    """As the newest and by its version: it would take twice the memory."""
    make_bundle(tmp_path, "colors")
    settings = Settings(models=tmp_path, load=("colors", "colors/1", "colors"))

    assert len(find_bundles(settings)) == 1
