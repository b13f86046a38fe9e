"""The pages work in a browser, offline, for every task, and look after themselves."""

import re
import shutil

import pytest

from tests.service.conftest import GRAY, GREEN, RED

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_asks_no_other_host_for_anything(client, path):
    """It works behind a firewall, and tells nobody who looks at it."""
    response = client.get(path)

    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, where it is installed."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    """The page, loaded; it must not have reported any error when the test ends."""
    page = browser.new_page()
    complaints = []
    page.set_default_timeout(15_000)
    # a lambda, because playwright hangs an attribute on what it calls
    page.on("pageerror", lambda error: complaints.append(error))  # noqa: PLW0108
    page.on(
        "console",
        # a refused image is reported by the browser as a failed resource
        lambda m: (
            m.type == "error"
            and "Failed to load resource" not in m.text
            and complaints.append(m.text)
        ),
    )
    page.goto(server.url)
    page.wait_for_function("document.getElementById('model').options.length > 1")
    yield page
    page.close()
    assert complaints == []


def give(page, image):
    """Choose a file, as a person would."""
    page.set_input_files(
        "#file", {"name": "a.png", "mimeType": "image/png", "buffer": image}
    )


def test_a_picture_is_answered_with_bars(page):
    """Best label first, in words and as a bar."""
    give(page, RED)

    page.wait_for_selector("#answer .verdict")
    assert page.inner_text("#answer .verdict").startswith("red")
    assert page.locator("#answer li").count() == 3
    assert page.locator("#answer li.counts").count() == 1


@pytest.mark.parametrize(
    ("model", "image", "said"),
    [
        ("is-red", RED, "red"),
        ("is-red", GREEN, "not red"),
        ("has", GRAY, "red, green, blue"),
        ("shades", RED, "warm"),
        ("shades", GRAY, "The model does not know."),
    ],
    ids=["yes", "no", "labels", "groups", "abstains"],
)
def test_every_task_is_shown(page, model, image, said):
    """Decision, thresholds, groups and abstention."""
    give(page, image)
    page.select_option("#model", label=model)

    page.wait_for_function(
        "said => document.getElementById('answer').innerText.includes(said)", arg=said
    )


def test_an_error_is_shown_with_its_code(page):
    """In the words of the service."""
    give(page, b"not a picture")

    page.wait_for_selector("#answer .bad")
    assert "image_format_unsupported" in page.inner_text("#answer")


def test_a_pasted_picture_is_taken(page):
    """From the clipboard, without a file."""
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            const options = { type: "image/png" };
            data.items.add(new File([new Uint8Array(bytes)], "p.png", options));
            const paste = new ClipboardEvent("paste", { clipboardData: data });
            document.dispatchEvent(paste);
        }""",
        list(RED),
    )

    page.wait_for_selector("#answer .verdict")


def test_the_page_works_by_keyboard(page):
    """Picture, model, predictions and threshold are reached in this order."""
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))

    assert reached[-4:] == ["file", "model", "top-k", "threshold"]


def test_the_documentation_is_drawn_from_the_document(page, server):
    """Routes, errors and shapes."""
    page.goto(f"{server.url}/docs#image_undecodable")

    page.wait_for_selector("#image_undecodable")
    text = page.inner_text("main")
    assert "/classify/batch" in text
    assert "AnswerShape" not in text
