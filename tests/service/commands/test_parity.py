"""The same bytes through the library, the command line and HTTP: the same scores."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

import cli
from classifier import Classifier
from tests.classifier.processes import ROOT

PHOTOS = 4


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """`linnaeus serve` in a process of its own, on a free port. Yields its URL."""
    command = [sys.executable, "-m", "cli", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            events = (json.loads(line) for line in process.stdout)
            yield next(e["url"] for e in events if e["event"] == "listening")
        finally:
            process.terminate()
            process.stdout.read()  # until it has drained and ended
    assert process.returncode == 0


def listed(predictions: list[dict]) -> list[tuple[str, int]]:
    """Labels and indices, best first."""
    return [(p["label"], p["index"]) for p in predictions]


def test_library_command_line_and_http_agree(imagenet_bundle, sample_photos):
    """On real photos, by all three ways that a user has to the committed bundle."""
    paths = [str(photo.path) for photo in sample_photos[:PHOTOS]]
    options = ("--models", str(imagenet_bundle.parent))
    library = Classifier.load(imagenet_bundle)

    result = CliRunner().invoke(
        cli.app, ["classify", *paths, *options, "--format", "jsonl"]
    )
    with serving(*options, "--load", "imagenet") as url:
        over_http = [
            httpx.post(
                f"{url}/classify",
                content=Path(path).read_bytes(),
                headers={"content-type": "application/octet-stream"},
                timeout=30,
            ).json()
            for path in paths
        ]

    assert result.exit_code == 0, result.output
    for path, line, response in zip(
        paths, result.stdout.splitlines(), over_http, strict=True
    ):
        expected = library.classify(path)
        names = [(p.label, p.index) for p in expected.predictions]
        for said in (json.loads(line), response):
            assert listed(said["predictions"]) == names
            for prediction, own in zip(
                said["predictions"], expected.predictions, strict=True
            ):
                assert prediction["score"] == pytest.approx(own.score, abs=1e-5)
            assert said["image"]["width"] == expected.image.width
