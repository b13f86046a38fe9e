"""Every route finds a model's versions alike, and refuses alike what is none."""

from collections.abc import Iterator

import httpx
import pytest

from tests.service.conftest import RED, running, send
from tests.synthetic import make_bundle

DATED = 20261129120000
LONGEST = 10**18 - 1


@pytest.fixture(scope="module")
def dated(settings_for, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a service with versions that tell a time, and the longest one."""
    root = tmp_path_factory.mktemp("dated")
    for version in (DATED, LONGEST):
        make_bundle(root, version=version)
    load = f"colors/{LONGEST},colors/{DATED}"  # listed as they are sorted
    with running(settings_for(models=root, load=load)) as server:
        yield server.client


@pytest.mark.parametrize("version", [DATED, LONGEST])
def test_a_long_version_is_found_by_every_route(dated, version):
    """As it is listed."""
    answer = send(dated, RED, version=version).json()
    detail = dated.get("/models/colors", params={"version": version}).json()
    tensors = dated.get(f"/v2/models/colors/versions/{version}")

    assert detail["default"] == (version == LONGEST)  # the newest answers
    assert answer["model"] == {"name": "colors", "version": version}
    assert (detail["version"], detail["versions"]) == (version, [DATED, LONGEST])
    assert tensors.json()["versions"] == [str(DATED), str(LONGEST)]


def test_a_version_that_is_not_loaded_is_not_found_by_any_route(dated):
    """However many digits it has, up to those that versions may have."""
    answers = [
        send(dated, RED, version=DATED + 1),
        dated.get("/models/colors", params={"version": DATED + 1}),
        dated.get(f"/v2/models/colors/versions/{DATED + 1}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 3
    for answer in answers:
        assert f"no version {DATED + 1} loaded" in answer.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("verison=2", "'verison' is not a parameter; allowed: version"),
        ("top_k=2", "'top_k' is not a parameter; allowed: version"),
        ("version=1&version=2", "version is given more than once"),
        ("version=1_0", "version is '1_0'; a whole number from 1 on is allowed"),
        (f"version={10**18}", "version has 19 digits; at most 18 are allowed"),
        ("version", "cannot be read; it may hold version, each once"),
    ],
)
def test_the_query_of_a_model_is_read_as_strictly_as_that_of_an_image(
    client, query, said
):
    """A version that is misspelled is not silently the newest one."""
    answer = client.get(f"/models/colors?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert said in answer.json()["detail"]
