"""The pages work in a browser, offline, for every task, and look after themselves."""

import json
import re
import shlex
import shutil
from contextlib import ExitStack, contextmanager
from io import BytesIO

import httpx
import pytest
from PIL import ExifTags, Image, ImageCms

from service import examples
from tests.service.conftest import BLUE, GRAY, GREEN, RED, running, send
from tests.synthetic import make_bundle, png

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_asks_no_other_host_for_anything(client, path):
    """It works behind a firewall, and tells nobody who looks at it."""
    response = client.get(path)

    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", response.text)
    policy = response.headers["Content-Security-Policy"]
    assert re.fullmatch(
        "default-src 'none'; script-src 'sha256-[^ ]+'; style-src 'sha256-[^ ]+'; "
        "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        policy,
    )
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"  # of a release before
    for place in re.findall(r'<a href="(.*?)"', response.text):
        assert client.get(f"/{place.removeprefix('./')}").status_code == 200


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


@contextmanager
def opened(browser, url):
    """The page, loaded; it must not have reported any error in the end."""
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
    page.goto(url)
    page.wait_for_selector("#model:enabled")
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def page(browser, server):
    """Of the common server, whose models explain nothing."""
    with opened(browser, server.url) as page:
        yield page


@pytest.fixture
def explaining_page(browser, settings_for, tmp_path):
    """Of a server with one model that explains, and one that does not."""
    make_bundle(tmp_path, "blind")
    make_bundle(tmp_path, "colors", class_maps=True)
    with (
        running(settings_for(models=tmp_path)) as server,
        opened(browser, server.url) as page,
    ):
        yield page


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
    ("model", "image", "counting", "said"),
    [
        ("is-red", RED, 1, r"^red\nred: [\d.]+ %, threshold [\d.]+ %$"),
        ("is-red", GREEN, 0, r"^not red\nred: [\d.]+ %, threshold [\d.]+ %$"),
        ("has", GRAY, 3, "^red, green, blue$"),
        (
            "shades",
            RED,
            2,
            r"^[\w-]+\n[\d.]+ %, best group: warm [\d.]+ %$(.|\n)*^Groups\nwarm$",
        ),
        ("shades", GRAY, 0, "^The model does not know.$"),
    ],
    ids=["yes", "no", "labels", "groups", "abstains"],
)
def test_every_task_is_shown(page, model, image, counting, said):
    """Decision, thresholds, groups and abstention, and what counts for it."""
    give(page, image)
    page.select_option("#model", label=model)
    wait_for_answer(page, model)

    shown = plain(page.inner_text("#answer"))
    assert re.search(said, re.sub("\n+", "\n", shown), re.MULTILINE), shown
    assert page.locator("li.counts").count() == counting


def plain(text):
    """With spaces that break, and an x for times."""
    signs = {"\N{NO-BREAK SPACE}": " ", "\N{MULTIPLICATION SIGN}": "x"}
    return text.translate(str.maketrans(signs))


def wait_for_answer(page, model):
    """Until it is of this model."""
    page.wait_for_function(
        """model => document.querySelector("#answer:not(.busy) .facts")
            ?.innerText.includes(`${model} version`)""",
        arg=model,
    )


def percent(score):
    """As the page writes it."""
    digits = 2 if score < 0.1 or score > 0.99 else 1
    return f"{100 * score:.{digits}f}\N{NO-BREAK SPACE}%"


# Of each row: what is written, how long its bar is, where its threshold is marked.
ROWS = """() => Array.from(document.querySelectorAll("#answer li"), (row) => ({
    words: Array.from(row.querySelectorAll(".row span"), (e) => e.textContent),
    long: parseFloat(row.querySelector(".bar i").style.width),
    mark: parseFloat(row.querySelector(".bar b")?.style.left ?? -1),
    counts: row.classList.contains("counts"),
}))"""


@pytest.mark.parametrize("model", ["colors", "is-red", "has"])
def test_a_bar_is_as_long_as_its_score(page, client, model):
    """And says it; the threshold, where there is one, decides whether it counts."""
    given = {"top_k": 3} if model == "has" else {}
    said = send(client, RED, model=model, **given).json()["predictions"]
    page.select_option("#model", label=model)
    give(page, RED)
    wait_for_answer(page, model)
    # they grow from nothing; a text that is no function would be evaluated at each
    # look but the first, which the page's policy forbids
    page.wait_for_function(
        "() => document.querySelector('#answer .bar i').style.width !== '0px'"
    )

    rows = page.evaluate(ROWS)

    assert len(rows) == len(said)
    for place, (row, prediction) in enumerate(zip(rows, said, strict=True)):
        score, threshold = prediction["score"], prediction.get("threshold")
        words = percent(score)
        if threshold is not None:
            words += f", threshold {percent(threshold)}"
        assert row["words"] == [prediction["label"], words]
        assert row["long"] == pytest.approx(100 * score, abs=0.01)
        mark = -1 if threshold is None else 100 * threshold
        assert row["mark"] == pytest.approx(mark, abs=0.01)
        assert row["counts"] == (place == 0 if threshold is None else score > threshold)


def test_below_the_bars_is_all_that_was_answered(page):
    """Size, model, times, what there is to know of the picture, and the JSON."""
    with page.expect_response("**/classify?*") as answered:
        give(page, png((240, 10, 10), (4, 4)))
    page.wait_for_selector("#answer .facts")

    answer = answered.value.json()
    size = "{width} x {height} {format}".format(**answer["image"])
    facts = plain(page.inner_text("#answer .facts"))
    assert re.fullmatch(
        rf"{size} · colors version 1( · (decode|queue|batch|infer) [\d.]+ ms){{4}}",
        facts,
    )
    assert "About this picture" in page.inner_text("#answer")
    assert page.inner_text("#answer .warn") == answer["warnings"][0]
    assert json.loads(page.locator("#answer pre").last.text_content()) == answer


@pytest.mark.parametrize(
    ("name", "kind"),
    [("it's.png", "image/png"), ("photo.txt", "application/octet-stream")],
)
def test_the_command_of_an_answer_answers_the_same(page, tmp_path, name, kind):
    """In a shell, whatever the file is called, and whatever it seems to be."""
    (tmp_path / name).write_bytes(RED)
    page.set_input_files("#file", tmp_path / name)
    wait_for_verdict(page, "red")

    shown, answer = page.locator("#answer pre").all_text_contents()
    curl, *options, url = shlex.split(shown)

    assert (curl, options) == (
        "curl",
        ["-H", f"Content-Type: {kind}", "--data-binary", f"@{name}"],
    )
    again = httpx.post(url, content=RED, headers={"Content-Type": kind}).json()
    assert again["predictions"] == json.loads(answer)["predictions"]


@pytest.mark.parametrize(
    ("image", "top_k", "threshold", "said", "shown"),
    [
        (GRAY, "", "", "3 over the threshold", 3),
        (RED, "", "", "1 over the threshold", 3),
        (
            GRAY,
            "1",
            "",
            "1 of the 1 shown over the threshold; Predictions says how many",
            1,
        ),
        (
            GRAY,
            "2",
            "0.5",
            "2 of the 2 shown over the threshold; Predictions says how many",
            2,
        ),
        (RED, "2", "0.9", "1 over the threshold", 1),
        (GRAY, "3", "1", "none of its labels", 0),
        (GRAY, "", "1", "none of its labels", 0),
        (GRAY, "", "0.5", "3 over the threshold", 3),
        (RED, "", "0.9", "1 over the threshold", 1),
    ],
    ids=[
        "as-it-is",
        "with-those-under-it",
        "cut",
        "cut-above",
        "not-cut",
        "whole",
        "none-above",
        "all-above",
        "only-those-above",
    ],
)
def test_labels_are_counted_no_further_than_they_came(
    page, image, top_k, threshold, said, shown
):
    """Where the list was cut, others may be over the threshold, too."""
    page.select_option("#model", label="has")
    page.fill("#top-k", top_k)
    page.fill("#threshold", threshold)
    with page.expect_request("**/classify?*") as asked:
        give(page, image)

    page.wait_for_selector("#answer .verdict")
    assert ("top_k" in asked.value.url) == bool(top_k or not threshold)
    assert said in re.split("\n+", page.inner_text("#answer .verdict"))
    assert page.locator("#answer li").count() == shown


def test_the_command_is_that_of_the_answer(page):
    """Fields that were changed while it was under way are of the next question."""

    def type_then_answer(route):
        page.locator("#top-k").evaluate("field => { field.value = 2; }")
        route.continue_()

    page.route("**/classify?*", type_then_answer)
    give(page, RED)

    page.wait_for_selector("#answer .verdict")
    assert page.locator("#answer li").count() == 3
    assert "top_k" not in page.locator("#answer pre").first.text_content()


def test_while_an_answer_is_awaited_the_old_one_is_marked_as_such(explaining_page):
    """For eyes and for screen readers, also where the label was seen."""
    page = explaining_page
    parts = ("answer", "heat", "heat-text")
    awaited = []

    def look_then_answer(route):
        awaited.append(page.inner_text("#clock"))
        awaited.append(page.locator("#clock").get_attribute("role"))
        awaited.extend(
            page.locator(f"#{part}.busy[aria-busy=true]").count() for part in parts
        )
        route.continue_()

    page.check("#explain")
    give(page, RED)
    page.wait_for_selector("#heat", state="visible")
    page.route("**/classify?*", look_then_answer)
    page.fill("#top-k", "1")
    page.press("#top-k", "Enter")
    page.wait_for_selector("#answer li:only-child")

    assert awaited == ["waiting …", "status", 1, 1, 1]
    assert (
        page.locator(".busy").count() == page.locator("[aria-busy=true]").count() == 0
    )
    assert "round trip" in page.inner_text("#clock")


@pytest.fixture
def held(page):
    """What is asked of the service, which does not hear of it."""
    held = []
    # a lambda, as above
    page.route("**/classify?*", lambda route: held.append(route))  # noqa: PLW0108
    yield held
    page.unroute("**/classify?*")


@pytest.mark.parametrize("then", ["picture", "link"])
def test_what_is_no_longer_asked_is_withdrawn(page, held, then):
    """Its answer, come late, would hide what came after it; nor is it a failure."""
    with page.expect_request("**/classify?*"):
        give(page, RED)

    with page.expect_event("requestfailed"):
        if then == "picture":
            give(page, GREEN)
        else:
            drop(page, text="https://example.com/cat.jpg")

    if then == "picture":
        page.evaluate("state.file.arrayBuffer()")  # as long as a failure is looked into
        assert page.locator("#answer.busy").count() == 1
        assert page.locator("#answer .bad").count() == 0
        held[-1].continue_()
        wait_for_verdict(page, "green")
    else:
        page.wait_for_selector("#answer:not(.busy) .bad")
        assert "That is no file" in page.inner_text("#answer")
        assert page.inner_text("#clock") == ""


def test_a_model_is_described_and_asked_anew(page, client):
    """No more is asked for than it gives, nor what was asked of the one before."""
    listed = {m["name"]: m for m in client.get("/models").json()["models"]}
    for name, most, words in (
        ("shades", 6, "one of many, in groups (fine-grained), 6 labels, fp32 on cpu."),
        ("is-red", 1, "yes or no (binary), 2 labels, fp32 on cpu."),
        ("colors", 3, "one of many (multiclass), 3 labels, fp32 on cpu."),
    ):
        page.fill("#top-k", "2")
        page.fill("#threshold", "0.5")
        page.select_option("#model", label=name)
        fields = page.locator("#top-k, #threshold")

        assert fields.evaluate_all("all => all.map((e) => e.value)") == ["", ""]
        assert page.get_attribute("#top-k", "max") == str(most)
        assert page.get_attribute("#top-k", "placeholder") == str(listed[name]["top_k"])
        description = listed[name]["description"]
        assert page.inner_text("#about") == f"{description} Answers {words}"


def test_an_error_is_shown_with_its_code(page):
    """In the words of the service."""
    give(page, b"not a picture")

    page.wait_for_selector("#answer .bad")
    assert re.search(r"image_format_unsupported · \w+", page.inner_text("#answer"))


HTML = {"content_type": "text/html", "body": "<h1>413 Request Entity Too Large</h1>"}
PROBLEM = {
    "content_type": "application/problem+json",
    "body": '{"title": "The service is stopping", "detail": "…", "code": "draining"}',
}
STOPPING = {
    "status": 503,
    "content_type": "application/problem+json",
    "body": '{"title": "The service is stopping", "detail": "…", "status": 503}',
}
UNREADABLE = {
    "status": 422,
    "content_type": "application/problem+json",
    "body": '{"title": "The image is damaged", "detail": "…", "status": 422}',
}
UNKNOWN = {
    "status": 404,
    "content_type": "application/problem+json",
    "body": '{"title": "No such model", "detail": "…", "code": "model_not_found"}',
}


def test_an_error_of_a_proxy_is_shown_as_such(page):
    """It is in HTML, which is not the JSON that the page would read."""
    page.route("**/classify?*", lambda route: route.fulfill(status=413, **HTML))
    give(page, RED)

    page.wait_for_selector("#answer .bad")
    said = page.inner_text("#answer")
    assert "HTTP 413" in said
    assert "not from the service" in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 502, **HTML}, "not from the service"),
        ({"status": 503, **PROBLEM}, "The service is stopping"),
    ],
    ids=["proxy", "service"],
)
def test_a_list_of_models_that_does_not_come_is_not_waited_for(
    browser, server, answer, said
):
    """Whoever refuses it, and in whatever form; the next picture asks for it again."""
    page = browser.new_page()
    page.route("**/models", lambda route: route.fulfill(**answer))
    page.goto(server.url)

    page.wait_for_selector("#answer .bad")
    assert said in page.inner_text("#answer")
    assert page.inner_text("#model") == "none"

    page.unroute("**/models")
    give(page, RED)
    page.wait_for_selector("#answer .verdict")
    assert page.inner_text("#answer .verdict").startswith("red")
    page.close()


def test_a_page_that_is_older_than_its_service_asks_for_the_models_again(
    browser, settings_for, tmp_path
):
    """A tab stays open over a deployment, with the model that was chosen in it."""
    make_bundle(tmp_path, "colors")
    for version in (1, 2, 3):
        make_bundle(tmp_path, "shades", version=version)

    def loading(*versions, **given):
        load = ("colors", *(f"shades/{version}" for version in versions))
        return settings_for(models=tmp_path, load=load, **given)

    with ExitStack() as until_the_end:
        with running(loading(1, 2)) as server:
            page = until_the_end.enter_context(opened(browser, server.url))
            options = page.locator("#model option").all_text_contents()
            assert options == ["colors", "shades / 1", "shades / 2"]
            page.select_option("#model", label="shades / 1")
        until_the_end.enter_context(running(loading(2, 3, port=server.port)))

        give(page, RED)
        page.wait_for_selector("#answer .facts")

        assert "shades version 3" in page.inner_text("#answer .facts")


def test_a_model_that_is_listed_and_not_found_is_asked_for_twice_at_most(page):
    """Of several processes one may be newer than the other."""
    page.route("**/classify?*", lambda route: route.fulfill(**UNKNOWN))
    give(page, RED)

    page.wait_for_selector("#answer .bad")
    assert "model_not_found" in page.inner_text("#answer")


def test_what_was_set_for_a_model_that_is_gone_is_not_sent_to_another(page):
    """A threshold is one model's own; and the change is told."""
    page.select_option("#model", label="has")
    page.fill("#threshold", "0.9")
    models = page.request.get(f"{page.url}models").json()["models"]
    left = {"models": [model for model in models if model["name"] != "has"]}
    page.route("**/models", lambda route: route.fulfill(json=left))
    page.route("**/classify?model=has*", lambda route: route.fulfill(**UNKNOWN))

    give(page, RED)
    wait_for_answer(page, "colors")

    assert "has is not served any more; colors has answered." in page.inner_text(
        "#answer"
    )
    assert page.input_value("#threshold") == ""
    assert page.inner_text("#answer .verdict").startswith("red")

    give(page, GREEN)
    page.wait_for_selector("#answer .verdict:has-text('green')")
    assert "not served any more" not in page.inner_text("#answer")  # told once


@pytest.mark.parametrize(
    ("trouble", "passes"),
    [
        (lambda route: route.abort(), True),
        (lambda route: route.fulfill(**STOPPING), True),
        (lambda route: route.fulfill(**UNREADABLE), False),
    ],
    ids=["lost", "stopping", "broken"],
)
def test_what_may_pass_can_be_tried_again(page, trouble, passes):
    """With the picture that was given; a broken one stays so."""
    page.route("**/classify?*", trouble)
    give(page, RED)
    page.wait_for_selector("#answer .bad")
    button = page.get_by_role("button", name="Try again")

    assert button.count() == passes
    if passes:
        page.unroute("**/classify?*")
        button.click()
        page.wait_for_selector("#answer .verdict")


def test_the_list_of_models_can_be_asked_for_again(browser, server):
    """Also before a picture was given."""
    page = browser.new_page()
    page.route("**/models", lambda route: route.abort())
    page.goto(server.url)
    page.wait_for_selector("#answer .bad")
    page.unroute("**/models")

    page.get_by_role("button", name="Try again").click()

    page.wait_for_selector("#model:enabled")
    page.wait_for_selector("#answer .empty")
    assert page.locator("#answer .bad").count() == 0
    page.close()


@pytest.mark.parametrize(("width", "height"), [(360, 640), (390, 844), (640, 512)])
@pytest.mark.parametrize("image", ["answered", "refused"])
def test_on_a_phone_an_answer_comes_into_view(browser, server, width, height, image):
    """It is below picture and controls, and would seem not to have come."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(server.url)
    give(page, png((255, 0, 0), (300, 300)) if image == "answered" else b"none")

    first = page.wait_for_selector("#answer .verdict, #answer .bad")

    box = first.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] < height + 1  # of pixels of the screen
    page.close()


def paste(page, image):
    """Give an image by the clipboard."""
    page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            const options = { type: "image/png" };
            data.items.add(new File([new Uint8Array(bytes)], "p.png", options));
            const paste = new ClipboardEvent("paste", { clipboardData: data });
            document.dispatchEvent(paste);
        }""",
        list(image),
    )


def test_a_pasted_picture_is_taken(page):
    """From the clipboard, without a file."""
    paste(page, RED)

    page.wait_for_selector("#answer .verdict")


def test_a_pasted_text_is_left_to_its_field(page):
    """A number for one of them, for example."""
    prevented = page.locator("#top-k").evaluate(
        """field => {
            const data = new DataTransfer(), options = { bubbles: true };
            data.setData("text/plain", "2");
            Object.assign(options, { clipboardData: data, cancelable: true });
            const paste = new ClipboardEvent("paste", options);
            field.dispatchEvent(paste);
            return paste.defaultPrevented;
        }"""
    )

    assert prevented is False
    assert page.locator("#answer .bad").count() == 0


def drop(page, *files, text=None):
    """Let go over the page what another window gave: files by path, or a link."""
    devtools = page.context.new_cdp_session(page)
    link = {"mimeType": "text/uri-list", "data": text}
    data = {
        "items": [link] if text else [],
        "files": [str(file) for file in files],
        "dragOperationsMask": 1,
    }
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send(
            "Input.dispatchDragEvent", {"type": kind, "x": 9, "y": 9, "data": data}
        )


def test_a_dropped_picture_is_taken(page, photo):
    """Wherever on the page it falls."""
    drop(page, photo)

    wait_for_verdict(page, "red")
    assert page.locator(".over").count() == 0


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("nothing", "That is no file"),
        ("folder", "That is a folder"),
        ("two", "One picture at a time"),
    ],
)
def test_a_drop_that_is_not_one_picture_is_answered_with_words(
    page, photo, tmp_path, what, said
):
    """A link has no file, a folder cannot be sent, and of two the second was lost."""
    choose(page, photo)
    wait_for_verdict(page, "red")

    if what == "nothing":
        drop(page, text="https://example.com/cat.jpg")
    elif what == "folder":
        drop(page, tmp_path)
    else:
        other = tmp_path / "other.png"
        other.write_bytes(GREEN)
        drop(page, photo, other)

    page.wait_for_selector("#answer .bad")
    assert said in page.inner_text("#answer")


@pytest.mark.parametrize("field", ["Predictions", "Threshold"])
def test_a_number_that_cannot_be_read_is_not_taken_for_none(page, field):
    """A browser calls the value empty then, while the field shows what was typed."""
    give(page, RED)
    page.wait_for_selector("#answer .verdict")

    page.get_by_label(field).press_sequentially("1e")
    page.keyboard.press("Tab")

    page.wait_for_selector("#answer:not(.busy) .bad")
    assert f"{field} is not a number" in page.inner_text("#answer")
    page.get_by_label(field).press("Backspace")
    page.get_by_label(field).press("Backspace")
    page.keyboard.press("Tab")
    page.wait_for_selector("#answer .verdict")


@pytest.fixture
def photo(tmp_path):
    """A red picture on the disk."""
    path = tmp_path / "photo.png"
    path.write_bytes(RED)
    return path


def choose(page, path):
    """By the dialog. A browser tells the page only if what it holds is changed by it.

    Playwright tells it in any case, so this looks first.
    """
    held = page.locator("#file").evaluate("e => Array.from(e.files, f => f.name)")
    if held != [path.name]:
        page.set_input_files("#file", path)


def wait_for_verdict(page, said):
    """Until the answer begins with this."""
    page.wait_for_function(
        """said => document.querySelector("#answer .verdict")
            ?.innerText.startsWith(said)""",
        arg=said,
    )


def test_the_same_file_can_be_chosen_again(page, photo):
    """After another picture, after it was edited, and after an error."""
    choose(page, photo)
    wait_for_verdict(page, "red")
    paste(page, GREEN)
    wait_for_verdict(page, "green")
    choose(page, photo)
    wait_for_verdict(page, "red")

    photo.write_bytes(BLUE)
    choose(page, photo)
    wait_for_verdict(page, "blue")

    page.context.set_offline(True)
    choose(page, photo)
    page.wait_for_selector("#answer .bad")
    assert "The service did not answer" in page.inner_text("#answer")
    page.context.set_offline(False)
    choose(page, photo)
    wait_for_verdict(page, "blue")


def test_the_same_file_can_be_chosen_after_the_way_back(page, photo):
    """A browser that goes back fills in the fields as they were, without a word."""
    choose(page, photo)
    wait_for_verdict(page, "red")
    page.click("text=API")
    page.wait_for_selector("#image_undecodable")
    page.go_back()
    page.wait_for_selector("#model:enabled")

    choose(page, photo)

    wait_for_verdict(page, "red")


@pytest.mark.parametrize("change", ["edited", "removed"])
def test_a_file_that_has_changed_is_not_blamed_on_the_service(page, photo, change):
    """It cannot be sent, so the service was never asked."""
    choose(page, photo)
    wait_for_verdict(page, "red")
    if change == "edited":
        photo.write_bytes(photo.read_bytes() + b"more")
    else:
        photo.unlink()

    page.select_option("#model", label="is-red")

    page.wait_for_selector("#answer .bad")
    assert "The file has changed or is gone" in page.inner_text("#answer")


def test_the_page_works_by_keyboard(page):
    """Picture, model, predictions and threshold are reached in this order."""
    reached = []
    for _ in range(7):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))

    assert reached[-4:] == ["file", "model", "top-k", "threshold"]


def red_corner(kind, *, turned=False, **options):
    """A file of a picture that is red in what is its upper right once it is upright."""
    image = Image.new("RGB", (90, 90))
    image.paste((240, 0, 0), (45, 0, 90, 45))
    stream = BytesIO()
    if turned:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3
        image.rotate(180).save(stream, kind, exif=exif)
    else:
        image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_chooser_keeps_its_name(page):
    """A screen reader says what it does also when a picture is there."""
    chooser = page.get_by_role("button", name="press to choose a file")
    assert chooser.count() == 1

    give(page, RED)
    page.wait_for_selector("#answer .verdict")

    assert chooser.count() == 1


def test_the_picture_is_overlaid_with_what_spoke_for_its_label(explaining_page):
    """Red where red is, clear elsewhere, and the same in words; gone when not asked."""
    page = explaining_page
    give(page, red_corner("PNG"))
    page.wait_for_selector("#answer .verdict")
    assert page.is_hidden("#heat")
    page.check("#explain")
    page.wait_for_selector("#heat", state="visible")

    assert "“red” is in the upper right part" in page.inner_text("#heat-text")
    opacity = """([x, y]) => document.getElementById("heat").getContext("2d")
        .getImageData(x, y, 1, 1).data[3]"""
    right, left, below = (
        page.evaluate(opacity, at) for at in ([700, 100], [100, 100], [700, 700])
    )
    assert right > 150
    assert max(left, below) < 20

    page.uncheck("#explain")
    page.wait_for_selector("#heat", state="hidden")
    page.wait_for_selector("#heat-text", state="hidden")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    ("kind", "turned", "drawn"),
    [
        ("PNG", True, True),
        ("JPEG", True, True),
        ("WEBP", False, True),
        ("WEBP with colors", False, True),
        ("WEBP", True, False),
    ],
)
def test_no_map_is_drawn_on_a_picture_that_may_be_turned(
    explaining_page, kind, turned, drawn
):
    """Chromium turns the others by their EXIF, but not WebP; the words say so."""
    page = explaining_page
    kind, *more = kind.split()
    options = {"icc_profile": SRGB} if more else {}
    page.check("#explain")
    give(page, red_corner(kind, turned=turned, **options))
    page.wait_for_selector("#heat" if drawn else "text=No map is drawn")

    said = page.inner_text("#heat-text")
    assert "“red” is in the upper right part" in said
    assert ("No map is drawn" in said) != drawn
    assert page.is_visible("#heat") == drawn


def test_what_the_model_did_not_see_is_dark(explaining_page):
    """And what it saw is told; nothing of it lies on the next picture."""
    page = explaining_page

    def see_half(route):
        answer = route.fetch()
        told = answer.json()
        told["explanation"]["region"] = [0.25, 0, 0.75, 1]
        route.fulfill(response=answer, json=told)

    page.route("**/classify?*", see_half)
    page.check("#explain")
    give(page, RED)
    page.wait_for_selector("#heat", state="visible")

    margin = """document.getElementById("heat").getContext("2d")
        .getImageData(100, 400, 1, 1).data"""
    assert list(page.evaluate(margin)) == [0, 0, 0, 153]
    said = plain(page.inner_text("#heat-text"))
    assert said.endswith("The model saw 50 % of the picture, inside the frame.")

    page.unroute("**/classify?*")
    page.route("**/classify?*", lambda _: None)  # is not answered
    give(page, GREEN)
    page.wait_for_selector("#heat", state="hidden")
    page.wait_for_selector("#heat-text", state="hidden")


@pytest.mark.parametrize(
    ("grid", "region", "said"),
    [
        ([[0, 0, 1]], [0, 0, 1, 1], "Of 1 x 3 places, “red” is in the right part"),
        ([[0], [0], [1]], [0, 0, 1, 1], "Of 3 x 1 places, “red” is in the lower part"),
        ([[0.5, 1, 0]], [0, 0, 1, 1], "Of 1 x 3 places, “red” is in the middle part"),
        ([[1, 0, 0]], [0.5, 0, 1, 1], "Of 1 x 3 places, “red” is in the middle part"),
        ([[0, 0]], [0, 0, 1, 1], "Nowhere among 1 x 2 places does the picture speak"),
    ],
)
def test_an_explanation_is_told_in_words(page, grid, region, said):
    """For who does not see the map: where in the whole picture, if anywhere."""
    explanation = {"label": "red", "grid": grid, "region": region}

    told = page.evaluate("told => inWords(told)", explanation)

    told = plain(told)
    assert told.replace("what speaks most for ", "").startswith(said)


def test_a_picture_that_the_browser_cannot_show_is_answered(page):
    """It says so in its place, until there is one that it can."""
    stream = BytesIO()
    Image.new("RGB", (20, 20), (240, 10, 10)).save(stream, "TIFF")
    give(page, stream.getvalue())
    wait_for_verdict(page, "red")
    page.wait_for_selector("#no-preview", state="visible")
    assert page.is_hidden("#preview")

    give(page, GREEN)
    page.wait_for_selector("#preview", state="visible")
    assert page.is_hidden("#no-preview")
    assert page.is_hidden("#invitation strong")
    assert page.get_attribute("#preview", "alt") == "a.png"


def test_a_model_that_does_not_explain_is_not_asked_to(explaining_page):
    """The choice is there for the models that have it."""
    page = explaining_page
    give(page, RED)
    page.check("#explain")
    page.wait_for_selector("#heat", state="visible")

    page.select_option("#model", label="blind")

    page.wait_for_selector("#explain-field", state="hidden")
    page.wait_for_selector("#heat", state="hidden")
    page.wait_for_selector("#answer .verdict")


def test_the_documentation_is_drawn_from_the_document(page, server):
    """Routes, errors and shapes."""
    page.goto(f"{server.url}/docs#image_undecodable")

    page.wait_for_selector("#image_undecodable")
    text = page.inner_text("main")
    assert "/classify/batch" in text
    assert "Retry-After" in page.text_content("main")  # in a part that is folded
    assert "AnswerShape" not in text


@pytest.mark.parametrize(
    "words",
    [
        "top_k query integer from 1 How many predictions. Unset: the model's own",
        "threshold query number 0 to 1 Instead of the model's thresholds",
        'Content-Encoding header "gzip", "deflate", "identity" How the body',
        "multipart/form-data field file: binary",
        "multipart/form-data field files: list of binary",
        "image/* binary",
        f'application/json ImageBody {{ "image": "{examples.PNG_BASE64}" }}',
        '"predictions": [ { "label": "red", "index": 0,',
        "text/plain string",
        "results list of Answer or FailedItem",
        "explains boolean explain=true is available.",
        "Prediction One label with its score.",
        "GET /readyz May traffic come?",
        "overloaded 503 The service is full " + examples.DETAILS["overloaded"],
        'datatype "FP32", "BYTES"',
    ],
)
def test_the_documentation_says_of_each_part_what_it_is(documentation, words):
    """Parameters, bodies, examples, answers, shapes and errors."""
    assert words in documentation


@pytest.fixture(scope="module")
def documentation(browser, server):
    """Its words, those that are folded too, and spaces between them."""
    page = browser.new_page()
    page.goto(f"{server.url}/docs")
    page.wait_for_selector("#overloaded")
    opened = page.locator("details[open] > summary .verb").all_inner_texts()
    page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
    text = page.inner_text("body")
    page.close()
    assert set(opened) == {"POST"}  # what a reader comes for
    return " ".join(text.split())


def test_the_documentation_is_introduced_by_the_document(documentation, client):
    """Title line and description."""
    info = client.get("/openapi.json").json()["info"]

    assert f"{info['summary']}, version {info['version']}" in documentation
    words = " ".join(info["description"].replace("`", "").split())
    assert words in documentation


def test_a_document_that_does_not_come_is_told(browser, server):
    """In place of the routes."""
    page = browser.new_page()
    page.route("**/openapi.json", lambda route: route.fulfill(status=502, **HTML))
    page.goto(f"{server.url}/docs")

    page.wait_for_selector(".bad")
    assert "openapi.json could not be read" in page.inner_text("main")
    page.close()


@pytest.mark.parametrize("page_is", ["fresh", "open"])
def test_the_error_that_the_address_names_is_highlighted(page, server, page_is):
    """A problem's `type` leads there, though the page is drawn after it is loaded."""
    if page_is == "open":
        page.goto(f"{server.url}/docs")
        page.wait_for_selector("#overloaded")
    page.goto(f"{server.url}/docs#overloaded")

    page.wait_for_selector("#overloaded:target")
    assert 10 < page.locator("#overloaded").bounding_box()["y"] < 100


@pytest.mark.parametrize("path", ["", "docs"])
def test_no_page_is_wider_than_a_phone(browser, server, path):
    """Nobody has to scroll sideways to read a line."""
    phone = browser.new_page(viewport={"width": 360, "height": 800})
    phone.goto(f"{server.url}/{path}", wait_until="networkidle")
    phone.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")

    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    phone.close()


# Widths in CSS pixels: what labels and values need, and what they have.
ROOM = """() => Array.from(document.querySelectorAll("label.field"), (field) => {
    const input = field.querySelector("input, select"), style = getComputedStyle(input);
    const label = document.createRange(), canvas = document.createElement("canvas");
    const drawing = canvas.getContext("2d");
    label.selectNode(field.firstChild);
    drawing.font = style.font;
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    return {
        label: [label.getBoundingClientRect().width, field.clientWidth],
        value: [drawing.measureText(input.value).width, input.clientWidth - padding],
    };
})"""


@pytest.mark.parametrize("width", [320, 360, 800, 1200])
@pytest.mark.parametrize("text", ["100%", "200%"])
def test_numbers_and_their_labels_have_room(browser, server, width, text):
    """On a phone, and where the text is large."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(server.url)
    page.wait_for_selector("#model:enabled")
    page.evaluate("size => { document.documentElement.style.fontSize = size; }", text)
    page.fill("#top-k", "1000")
    page.fill("#threshold", "0.05")

    fields = page.evaluate(ROOM)
    page.close()

    assert len(fields) == 3
    for field in fields:
        for needed, given in field.values():
            assert needed <= given


# What is seen, on the colors that lie below it: texts, placeholders, edges of controls.
SEEN = """() => {
    const grounds = (e) => e ? [...grounds(e.parentElement), getComputedStyle(e)] : [];
    const below = (e) => grounds(e).map((style) => style.backgroundColor);
    const opacity = (e) => grounds(e).reduce((product, s) => product * s.opacity, 1);
    const seen = [];
    for (const e of document.querySelectorAll("body *:not(script, style)")) {
        if (!e.checkVisibility()) continue;
        const name = `${e.tagName}.${e.className}#${e.id}`, style = getComputedStyle(e);
        const add = (color, ground, least) => seen.push([
            name, color, below(ground), opacity(e), least,
        ]);
        const words = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (words) add(style.color, e, 4.5);
        if (e.placeholder) add(getComputedStyle(e, "::placeholder").color, e, 4.5);
        if (e.matches("input[type=number], select, .drop")) {
            add(style.borderTopColor, e, 3);
            add(style.borderTopColor, e.parentElement, 3);
        }
    }
    return seen;
}"""


def channels(color):
    """Red, green, blue from 0 to 255 and opacity, of `rgb(…)` or `rgba(…)`."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", color)]
    return (*numbers[:3], numbers[3] if len(numbers) > 3 else 1.0)


def over(ground, color, opacity=1.0):
    """A color as it is seen on an opaque one."""
    *rgb, alpha = channels(color)
    alpha *= opacity
    return tuple(alpha * c + (1 - alpha) * g for c, g in zip(rgb, ground, strict=True))


def luminance(rgb):
    """Relative luminance, as WCAG 2.2 defines it."""
    linear = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in rgb)
    )
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(color, grounds, opacity):
    """The ratio of WCAG 2.2, from 1 to 21, of a color on those below it."""
    ground = (255, 255, 255)
    for layer in grounds:
        ground = over(ground, layer)
    low, high = sorted((luminance(over(ground, color, opacity)), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "docs"])
def test_words_and_edges_stand_out(browser, server, path, scheme):
    """WCAG 2.2, level AA: 4.5 for text, 3 for the edges of what can be used."""
    page = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
    page.goto(f"{server.url}/{path}")
    page.wait_for_selector("#image_undecodable" if path else "#model:enabled")
    seen = page.evaluate(SEEN)
    if not path:
        for image, part in ((RED, ".verdict"), (b"not a picture", ".bad")):
            give(page, image)
            page.wait_for_selector(f"#answer:not(.busy) {part}")
            seen += page.evaluate(SEEN)
    page.close()

    assert len(seen) > 20
    faint = {
        f"{name}: {ratio:.2f} of {least}"
        for name, color, grounds, opacity, least in seen
        if (ratio := contrast(color, grounds, opacity)) < least
    }
    assert faint == set()
