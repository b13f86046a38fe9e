"""What `docs/http.md` shows of the protocol is what is there."""

import contextlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.oip.request import DATATYPES, MAX_VALUES, OUTPUTS
from tests.service.conftest import RED

FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def section(repository: Path) -> str:
    """The page's part on the protocol."""
    page = (repository / "docs" / "http.md").read_text()
    return page.partition("\n## Open Inference Protocol\n")[2].partition("\n## ")[0]


def test_the_example_with_tritonclient_runs(
    section, server: SimpleNamespace, tmp_path, monkeypatch
):
    """As it stands, but for the port, the model and the photo."""
    (tmp_path / "cat.jpg").write_bytes(RED)
    monkeypatch.chdir(tmp_path)
    [code] = FENCE.findall(section)
    code = code.replace("localhost:8000", f"127.0.0.1:{server.port}")
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(code.replace("imagenet", "colors"), {})  # noqa: S102

    assert ":0:red" in printed.getvalue()


def test_every_tensor_and_every_path_is_documented(section, client):
    """Rows of inputs and outputs, and the routes of the OpenAPI document."""
    for name in (*DATATYPES, *OUTPUTS):
        assert f"\n| `{name}` |" in section
    paths = client.get("/openapi.json").json()["paths"]
    for path in paths:
        if path.startswith("/v2") and "{version}" not in path:
            assert f"{path}`" in section
    assert f"{MAX_VALUES:,} values" in section
