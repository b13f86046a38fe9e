"""The pages work in a browser, offline, for every task, and look after themselves."""

import re
import shutil
from contextlib import ExitStack, contextmanager
from io import BytesIO

import pytest
from PIL import ExifTags, Image

from tests.service.conftest import BLUE, GRAY, GREEN, RED, running
from tests.synthetic import make_bundle

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


@pytest.mark.parametrize(
    ("image", "top_k", "threshold", "said"),
    [
        (GRAY, "", "", "3 over the threshold"),
        (GRAY, "1", "", "1 of the 1 shown over the threshold"),
        (GRAY, "2", "0.5", "2 of the 2 shown over the threshold"),
        (RED, "2", "0.9", "1 over the threshold"),
        (GRAY, "3", "1", "none of its labels"),
        (GRAY, "", "0.5", "3 over the threshold"),
    ],
    ids=["as-it-is", "cut", "cut-above", "not-cut", "whole", "all-above"],
)
def test_labels_are_counted_no_further_than_they_came(
    page, image, top_k, threshold, said
):
    """Where the list was cut, others may be over the threshold, too."""
    page.select_option("#model", label="has")
    page.fill("#top-k", top_k)
    page.fill("#threshold", threshold)
    give(page, image)

    page.wait_for_selector("#answer .verdict")
    assert said in re.split("\n+", page.inner_text("#answer .verdict"))


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


def test_no_more_predictions_are_asked_for_than_a_model_gives(page):
    """As many as there are labels; a binary answer has one."""
    most = {}
    for model in ("colors", "is-red"):
        page.select_option("#model", label=model)
        most[model] = page.get_attribute("#top-k", "max")

    assert most == {"colors": "3", "is-red": "1"}


def test_an_error_is_shown_with_its_code(page):
    """In the words of the service."""
    give(page, b"not a picture")

    page.wait_for_selector("#answer .bad")
    assert "image_format_unsupported" in page.inner_text("#answer")


HTML = {"content_type": "text/html", "body": "<h1>413 Request Entity Too Large</h1>"}
PROBLEM = {
    "content_type": "application/problem+json",
    "body": '{"title": "The service is stopping", "detail": "…", "code": "draining"}',
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
    for name in ("colors", "shades"):
        make_bundle(tmp_path, name)
    with ExitStack() as until_the_end:
        with running(settings_for(models=tmp_path)) as server:
            page = until_the_end.enter_context(opened(browser, server.url))
            page.select_option("#model", label="shades")
        make_bundle(tmp_path, "shades", version=2)
        settings = settings_for(models=tmp_path, port=server.port)
        until_the_end.enter_context(running(settings))

        give(page, RED)
        page.wait_for_selector("#answer .facts")

        assert "shades version 2" in page.inner_text("#answer .facts")


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


def red_corner(kind, *, turned=False):
    """A file of a picture that is red in what is its upper right once it is upright."""
    image = Image.new("RGB", (90, 90))
    image.paste((240, 0, 0), (45, 0, 90, 45))
    stream = BytesIO()
    if turned:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3
        image.rotate(180).save(stream, kind, exif=exif)
    else:
        image.save(stream, kind)
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


@pytest.mark.parametrize(
    ("kind", "turned", "drawn"),
    [
        ("PNG", True, True),
        ("JPEG", True, True),
        ("WEBP", False, True),
        ("WEBP", True, False),
    ],
)
def test_no_map_is_drawn_on_a_picture_that_may_be_turned(
    explaining_page, kind, turned, drawn
):
    """Chromium turns the others by their EXIF, but not WebP; the words say so."""
    page = explaining_page
    page.check("#explain")
    give(page, red_corner(kind, turned=turned))
    page.wait_for_selector("#heat" if drawn else "text=No map is drawn")

    said = page.inner_text("#heat-text")
    assert "“red” is in the upper right part" in said
    assert ("No map is drawn" in said) != drawn
    assert page.is_visible("#heat") == drawn


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
