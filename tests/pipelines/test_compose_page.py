"""`kedro compose` in a real browser, on a project in which everything has run."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
import requests
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

playwright = pytest.importorskip("playwright.sync_api")
Browser, Page, expect = playwright.Browser, playwright.Page, playwright.expect
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")


class Server:
    """`kedro compose` on a copy of a finished project: what is made on the page is no other test's."""

    def __init__(self, project, port: int, *arguments: str):
        self.project, self.address = project, f"http://127.0.0.1:{port}"
        self._port = port
        self.start(*arguments)

    def start(self, *arguments: str) -> None:
        given = ("--no-browser", f"--port={self._port}", *arguments)
        self._process = self.project.start(*given, command="compose", env="test")
        told = ""
        for line in self._process.stdout:
            told += line
            if "Compose at" in line:
                return
        raise AssertionError(told)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def server(finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("compose")
    project = type(finished)(folder / "project")
    shutil.copytree(finished.data, project.data, dirs_exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(project, port)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        there = next(filter(None, map(shutil.which, BROWSERS)), own if own.exists() else None)
        if there is None:
            pytest.skip("needs a browser: install Debian's chromium, or run `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=there, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(server: Server, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page in a session of its own, wide or as wide as asked for; at the end nothing may have gone wrong, or
    have been fetched from elsewhere."""
    wrong: list[str] = []
    contexts = []

    def open_page(query: str = "", width: int = 1400, context=None) -> Page:
        context = context or browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce")
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.address)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        page.on("request", lambda sent: wrong.append(sent.url) if not is_ours(sent.url) else None)
        page.goto(f"{server.address}/{query}")
        page.wait_for_selector("body[data-ready]")
        return page

    def is_ours(url: str) -> bool:
        return url.startswith((server.address, "data:", "blob:"))

    yield open_page
    for context in contexts:
        context.close()
    refused = [told for told in wrong if "status of 400" in told]  # Chromium tells of every answer of this kind
    assert [told for told in wrong if told not in refused] == []


def make(page: Page, button: str = "make") -> None:
    """Draw in few steps, and wait until it is there."""
    before = page.locator(".node").count()
    page.locator("#more").evaluate("details => details.open = true")
    page.fill("#rough-steps", "2")
    page.fill("#fine-steps", "3")
    page.click(f"#{button}")
    expect(page.locator(".node")).to_have_count(before + 1, timeout=60_000)
    expect(page.locator("#make")).to_be_enabled()


def prompt_of(page: Page) -> str:
    """Once the server has answered all that was asked."""
    expect(page.locator("#prompt")).to_have_attribute("aria-busy", "false")
    return page.locator("#prompt").inner_text()


def tokens(page: Page) -> list[str]:
    return re.findall(r"\[\d+,\d+\]", prompt_of(page))


def test_choosing_parts_and_making_a_picture(visit: Callable[..., Page]) -> None:
    page = visit()
    parts = page.locator("#tabs [role=tab]").count()
    for part in range(parts):
        page.locator("#tabs [role=tab]").nth(part).click()
        page.locator("#variants [role=option]").last.click()
        expect(page.locator("#variants [aria-selected=true]")).to_have_count(1)
    assert len(tokens(page)) == parts
    make(page)
    ticks = page.locator("figure .ticks li")
    expect(ticks).to_have_count(parts)
    assert all(text[0] in "✓✗" for text in ticks.all_inner_texts())
    expect(page.locator("#status")).to_contain_text(f"of {parts} parts arrived")
    expect(page.locator("figure img")).to_have_attribute("alt", f"Drawn from {prompt_of(page)}")
    assert page.locator("figure img").evaluate("image => image.naturalWidth") == 128


def test_overlays_show_the_parts_found_and_where_a_token_looked(visit: Callable[..., Page]) -> None:
    page = visit()
    make(page)
    covered = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
    canvas = page.locator("figure canvas")
    assert not canvas.evaluate(covered)
    for view in ("Parts found", "Where the token looked"):
        page.get_by_role("radio", name=view).click()
        assert canvas.evaluate(covered)
        assert canvas.evaluate("canvas => [canvas.width, canvas.height]") == [16, 16]


def test_shuffling_leaves_what_is_locked_and_swapping_changes_one_token(visit: Callable[..., Page]) -> None:
    page = visit()
    before = tokens(page)
    page.get_by_role("button", name=re.compile("^Lock")).nth(2).click()
    page.click("#shuffle")
    shuffled = tokens(page)
    assert shuffled[2] == before[2]
    assert shuffled != before
    make(page)
    page.locator("#tabs [role=tab]").nth(3).click()
    page.locator("#variants [role=option][aria-selected=false]").first.click()
    swapped = tokens(page)
    assert [one != other for one, other in zip(shuffled, swapped, strict=True)] == [n == 3 for n in range(len(swapped))]
    make(page)
    name = page.locator("#tabs [role=tab]").nth(3).inner_text()
    expect(page.locator(".node.shown .change")).to_have_text(name)


def test_the_keyboard_alone(visit: Callable[..., Page]) -> None:
    page = visit()
    before = tokens(page)
    page.keyboard.press("3")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.press("l")
    expect(page.locator("#slots li").nth(2).get_by_role("button", name=re.compile("Lock"))).to_have_text("locked")
    chosen = tokens(page)
    assert chosen[2] != before[2]
    page.keyboard.press("s")
    shuffled = tokens(page)
    assert shuffled[2] == chosen[2]
    assert shuffled != chosen
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Enter")
    expect(page.locator("figure")).to_have_count(1, timeout=60_000)


def test_the_same_noise_until_another_is_asked_for(visit: Callable[..., Page]) -> None:
    page = visit()
    drawn = []
    for button in (None, None, "noise"):
        if button:
            page.click(f"#{button}")
        make(page)
        drawn.append(requests.get(page.locator("figure img").evaluate("image => image.src"), timeout=9).content)
    pixels = [Image.open(BytesIO(content)).tobytes() for content in drawn]
    assert pixels[0] == pixels[1] != pixels[2]


def test_four_at_once_and_one_of_them_fine(visit: Callable[..., Page]) -> None:
    page = visit()
    page.check("#four")
    make(page)
    expect(page.locator("figure")).to_have_count(4)
    page.locator("figure").nth(2).get_by_role("button", name="Fine").click()
    expect(page.locator("figure")).to_have_count(1, timeout=60_000)
    expect(page.locator(".node.shown .change")).to_have_text("3 steps")


def test_a_picture_of_ones_own_lends_its_parts(visit: Callable[..., Page], server: Server) -> None:
    page = visit()
    lent = next(server.project.data.glob("01_raw/*/*/images/*.png"))
    page.set_input_files("#file", lent)
    rows = page.locator("#lent tr")
    expect(rows.first).to_be_visible()
    expect(page.locator("#lent .picture canvas")).to_have_class("grid")
    page.get_by_role("button", name="Take all").click()
    expected = requests.get(f"{server.address}/dataset/{lent.stem}/code", timeout=9).json()
    assert tokens(page) == [f"[{part},{variant}]" for part, variant in enumerate(expected) if variant is not None]


def test_stars_and_history_outlive_reload_and_restart(visit: Callable[..., Page], server: Server) -> None:
    page = visit()
    make(page)
    page.get_by_role("button", name="Star", exact=True).click()
    page.click("#noise")
    make(page)
    expect(page.locator(".node")).to_have_count(2)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator(".node")).to_have_count(2)
    page.wait_for_load_state("networkidle")  # crops may still be loading
    server.stop()
    server.start()
    page.reload()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator(".node")).to_have_count(2)
    page.check("#only-stars")
    expect(page.locator(".node")).to_have_count(1)
    page.locator(".node").hover()
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".node").get_by_role("button", name="Delete").click()
    page.uncheck("#only-stars")
    expect(page.locator(".node")).to_have_count(1)


def test_comparing_two_says_what_differs(visit: Callable[..., Page]) -> None:
    page = visit()
    make(page)
    page.click("#noise")
    make(page)
    page.locator(".node").first.hover()
    page.locator(".node").first.get_by_role("button", name="Compare").click()
    expect(page.locator("#compare img")).to_have_count(2)
    expect(page.locator("#compare li")).to_have_text(["other noise"])
    page.locator("#compare").get_by_role("button", name="Close").click()


def dropped(page: Page, path: Path) -> None:
    """Drop a file on the page."""
    page.evaluate(
        """async ([bytes, name]) => {
            const given = new DataTransfer();
            given.items.add(new File([new Uint8Array(bytes)], name));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
        }""",
        [list(path.read_bytes()), path.name],
    )


def test_a_dropped_picture_and_a_link_bring_the_recipe_back(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    page.fill("#after", "on sand")
    page.click("#shuffle")
    page.click("#noise")
    make(page)
    expected = prompt_of(page), page.input_value("#seed")
    picture = page.locator("figure img").evaluate("image => image.src")
    (tmp_path / "made.png").write_bytes(requests.get(picture, timeout=9).content)
    page.get_by_role("button", name="Link").click()
    link = page.evaluate("navigator.clipboard.readText()")

    elsewhere = visit()
    assert prompt_of(elsewhere) != expected[0]
    dropped(elsewhere, tmp_path / "made.png")
    expect(elsewhere.locator("#status")).to_contain_text("restored")
    assert (prompt_of(elsewhere), elsewhere.input_value("#seed")) == expected
    linked = visit(link.partition("/?")[2].join(["?", ""]))
    expect(linked.locator("#status")).to_contain_text("restored")
    assert (prompt_of(linked), linked.input_value("#seed")) == expected
    linked.click("#fine")
    expect(linked.locator("figure")).to_have_count(1, timeout=60_000)
    again = requests.get(linked.locator("figure img").evaluate("image => image.src"), timeout=9).content
    assert Image.open(BytesIO(again)).tobytes() == Image.open(tmp_path / "made.png").tobytes()


def test_the_pictures_of_a_run_can_be_dropped_too(visit: Callable[..., Page], server: Server) -> None:
    page = visit()
    drawn = next(server.project.data.glob("07_model_output/*/pictures-*/composition_*.png"))
    dropped(page, drawn)
    expect(page.locator("#status")).to_contain_text("restored")
    assert prompt_of(page) == Image.open(drawn).text["parameters"].splitlines()[0]


def test_cancelling_ends_the_drawing(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator("#more").evaluate("details => details.open = true")
    page.fill("#rough-steps", "200")
    page.click("#make")
    expect(page.locator("#status")).to_contain_text("Step", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    make(page)  # which a drawing that went on would keep waiting
    expect(page.locator(".node")).to_have_count(1)


def test_two_sessions_wait_for_each_other_and_see_their_own(visit: Callable[..., Page]) -> None:
    one, other = visit(), visit()
    one.locator("#more").evaluate("details => details.open = true")
    one.fill("#rough-steps", "200")
    one.click("#make")
    expect(one.locator("#status")).to_contain_text("Step", timeout=60_000)
    other.click("#make")
    expect(other.locator("#status")).to_contain_text("Next in line")
    one.get_by_role("button", name="Cancel").click()
    expect(other.locator("figure")).to_have_count(1, timeout=60_000)
    expect(one.locator(".node")).to_have_count(0)


def test_on_a_phone_nothing_is_wider_than_the_page(visit: Callable[..., Page]) -> None:
    page = visit(width=390)
    make(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def with_recipe(text: str, chunk: str = "partcraft") -> bytes:
    info, file = PngInfo(), BytesIO()
    info.add_itxt(chunk, text)
    Image.new("RGB", (16, 16)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def recipe(**changes: object) -> str:
    whole = {"prompt": "a [1,0]", "seed": 1, "noise": "0", "sampling": {"steps": 2}, "adapter": "0" * 16}
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xd8\xff\xe0 broken", "cannot be read as a picture"),
        (b"\0\0\0\x20ftypisom" + bytes(100), "cannot be read as a picture"),
        (b"", "cannot be read as a picture"),
        (png_of(20_000, 200), "crop it first"),
        (png_of(15_000, 15_000), "cannot be read as a picture"),
        (with_recipe(recipe(prompt="a" * 5000)), "This recipe cannot be used"),
        (with_recipe("<script>alert(1)</script>"), "This recipe cannot be used"),
        (with_recipe(recipe(sampling={"steps": 10**9})), "at most 200"),
        (with_recipe(recipe(seed=2**60)), "too large for a page"),
        (with_recipe(recipe()), "an adapter that is not here"),
    ],
    ids=["broken", "video", "empty", "panorama", "bomb", "long", "markup", "endless", "seed", "gone"],
)
def test_what_cannot_be_used_is_told_in_a_sentence(server: Server, content: bytes, sentence: str) -> None:
    answer = requests.post(f"{server.address}/picture", content, timeout=60)
    assert answer.status_code == 400
    assert sentence in answer.json()["sentence"]


def test_a_foreign_picture_is_a_donor(server: Server) -> None:
    answer = requests.post(f"{server.address}/picture", with_recipe("a bird\nSteps: 20", "parameters"), timeout=60)
    assert answer.status_code == 200
    assert "code" in answer.json()


def test_a_wrong_upload_is_told_on_the_page_and_nothing_is_lost(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    before = prompt_of(page)
    dropped(page, tmp_path / "clip.mp4")
    expect(page.locator("#status.wrong")).to_contain_text("cannot be read as a picture")
    assert prompt_of(page) == before
    broken = visit("?recipe=%%%")
    expect(broken.locator("#status.wrong")).to_contain_text("copy the whole link")


OUTSIDE = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/proxy=https://example.org",
    "/gradio_api/info",
    "/config",
    "/page/../history.py",
    "/page/%2e%2e/history.py",
    "/boards/0123456789abcdef/../../../0.png",
    "/boards/0123456789abcdef/%2e%2e/0.png",
    "/boards/%2e%2e/x/0.png",
    "/dataset/%2e%2e%2f%2e%2e%2frecords.parquet.jpg",
    "/crops/1/../../x.jpg",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    request = requests.Request("GET", server.address).prepare()
    request.url = server.address + path  # as it stands, without tidying
    with requests.Session() as session:
        assert session.send(request, timeout=9).status_code in (400, 404, 405, 422)


def test_gradio_s_own_routes_take_nothing(server: Server) -> None:
    sent = requests.post(f"{server.address}/gradio_api/upload", files={"files": b"x"}, timeout=9)
    assert sent.status_code == 404


def test_no_other_site_s_name_leads_here(server: Server) -> None:
    assert requests.get(server.address, headers={"Host": "example.org"}, timeout=9).status_code == 400


def test_only_this_machine_is_served(server: Server) -> None:
    port = int(server.address.rpartition(":")[2])
    listening = subprocess.run(["ss", "-ltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    assert f"127.0.0.1:{port}" in listening
    assert "0.0.0.0:" + str(port) not in listening


def test_names_with_markup_are_text(visit: Callable[..., Page], server: Server) -> None:
    names = next(server.project.data.glob("05_model_input/*/part_names.yml"))
    before = names.read_text()
    try:
        names.write_text(before.replace(before.splitlines()[1].partition(": ")[2], '"<img src=x onerror=alert(1)>"'))
        server.stop()
        server.start()
        page = visit()
        expect(page.locator("#tabs [role=tab]").nth(1)).to_have_text("<img src=x onerror=alert(1)>")
        assert page.locator("#tabs img").count() == 0
        page.close()  # crops may still be loading
    finally:
        names.write_text(before)
        server.stop()
        server.start()


def test_before_training_there_are_palettes(finished, tmp_path: Path, browser: Browser) -> None:
    project = type(finished)(tmp_path / "project")
    shutil.copytree(finished.data, project.data, dirs_exist_ok=True, ignore=shutil.ignore_patterns("adapter"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(project, port)
    try:
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]")
        expect(page.locator("#variants [role=option]").first).to_be_visible()
        expect(page.locator("#stage")).to_contain_text("kedro run --pipelines=train")
        expect(page.locator("#make")).to_be_disabled()
    finally:
        server.stop()


def test_an_adapter_alone_shows_its_crops_and_draws(finished, project, browser: Browser) -> None:
    """In a project in which nothing has run."""
    adapter = next(finished.data.glob("06_models/test/adapter/*/adapter"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(project, port, f"--adapter={adapter}")
    try:
        page = browser.new_page()
        page.goto(server.address)
        page.wait_for_selector("body[data-ready]")
        expect(page.locator("#tabs [role=tab]").filter(has_text="head")).to_be_visible()
        page.locator("#variants [role=option]").first.click()
        shown = page.locator("#variants [role=option] img").first
        expect(shown).to_have_js_property("naturalWidth", 112)
        expect(page.locator("#detail img")).to_have_js_property("naturalWidth", 112)
        expect(page.locator("#detail")).not_to_contain_text("All parts of this picture")
        make(page)
        expect(page.locator("#status")).to_contain_text("parts arrived")
    finally:
        server.stop()


def test_what_is_missing_is_told_before_anything_is_opened(finished, tmp_path: Path, server: Server) -> None:
    empty = type(finished)(tmp_path / "empty")
    code, output = empty.run("--no-browser", command="compose")
    assert (code, output.splitlines()[-1]) == (
        1,
        "Error: No parts have been discovered yet: run `kedro run --pipelines=parts` first, with the same --env.",
    )
    code, output = server.project.run("--no-browser", "--adapter=nine", command="compose")
    assert code == 1
    assert output.splitlines()[-1].startswith("Error: There is no adapter version or folder 'nine': ")
    taken = server.address.rpartition(":")[2]
    code, output = server.project.run("--no-browser", f"--port={taken}", command="compose")
    assert code == 1
    assert re.search(rf"Error: Port {taken} of 127\.0\.0\.1 cannot be used .*--port\.", output)


def test_ctrl_c_ends_it(server: Server) -> None:
    server._process.send_signal(signal.SIGINT)
    assert server._process.wait(30) == 0
    server.start()


def test_ctrl_c_ends_it_while_it_draws(server: Server) -> None:
    about = requests.get(f"{server.address}/studio", timeout=60).json()
    wish = {"board": "0" * 32, "code": [0] * len(about["parts"]), "noises": ["0"], "seed": 0}
    wish |= {"steps": about["most_steps"], "guidance_scale": 1}
    session = {"session_hash": "waits"}
    asked = {"data": [wish], "fn_index": 0, **session}
    requests.post(f"{server.address}/gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
    with requests.get(f"{server.address}/gradio_api/queue/data", session, stream=True, timeout=60) as told:
        next(line for line in told.iter_lines() if b'"step"' in line)
        server._process.send_signal(signal.SIGINT)
        assert server._process.wait(30) == 0
    server.start()


def test_the_python_of_a_picture_makes_it_again(visit: Callable[..., Page], server: Server, tmp_path: Path) -> None:
    page = visit()
    page.click("#shuffle")
    make(page)
    picture = requests.get(page.locator("figure img").evaluate("image => image.src"), timeout=9).content
    page.get_by_role("button", name="Python").click()
    expect(page.locator("#status")).to_contain_text("copied")
    lines = page.evaluate("navigator.clipboard.readText()")
    assert "open_catalog('test')" in lines
    subprocess.run([sys.executable, "-c", lines], cwd=server.project.folder, check=True)
    again = Image.open(server.project.folder / "made.png")
    assert again.tobytes() == Image.open(BytesIO(picture)).tobytes()


def test_one_goes_on_from_the_picture_that_is_chosen(visit: Callable[..., Page]) -> None:
    page = visit()
    page.check("#four")
    make(page)
    page.locator("figure .picture").nth(2).click()
    expect(page.locator("figure.chosen")).to_have_count(1)
    page.uncheck("#four")
    kept = page.locator("figure img").nth(2).evaluate("image => image.src")
    make(page)
    again = page.locator("figure img").evaluate("image => image.src")
    one, other = (Image.open(BytesIO(requests.get(source, timeout=9).content)) for source in (kept, again))
    # Batches of other sizes round differently.
    assert max(high for _, high in ImageChops.difference(one, other).getextrema()) <= 2


def test_nothing_goes_on_from_another_adapter_s_pictures(visit: Callable[..., Page], server: Server) -> None:
    page = visit()
    make(page)
    making = max(
        server.project.data.glob("07_model_output/*/boards/*/*/*/making.json"), key=lambda path: path.parent.name
    )
    content = json.loads(making.read_text())
    content["pictures"][0]["recipe"]["adapter"] = "0" * 16
    making.write_text(json.dumps(content))
    page.reload()
    page.wait_for_selector("body[data-ready]")
    expect(page.locator("figure").get_by_role("button", name="Fine")).to_be_disabled()
    page.locator(".node .go").click()
    expect(page.locator("#status")).to_contain_text("made with another adapter")


def test_the_focus_stays_where_one_works(visit: Callable[..., Page]) -> None:
    page = visit()
    for name in ("Lock", "Leave"):
        button = page.get_by_role("button", name=re.compile(f"^{name}")).nth(1)
        button.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.closest('#slots') !== null")
    page.locator("#tabs [role=tab]").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#tabs [role=tab]").nth(2)).to_be_focused()


def test_arrows_walk_through_the_parts(visit: Callable[..., Page]) -> None:
    page = visit()
    tabs = page.locator("#tabs [role=tab]")
    last = tabs.count() - 1
    tabs.nth(1).focus()
    for key, part in (
        ("ArrowRight", 2),
        ("ArrowLeft", 1),
        ("Home", 0),
        ("ArrowLeft", last),
        ("ArrowRight", 0),
        ("End", last),
    ):
        page.keyboard.press(key)
        expect(tabs.nth(part)).to_be_focused()
        expect(tabs.nth(part)).to_have_attribute("aria-selected", "true")
    name = tabs.nth(last).inner_text()
    expect(page.get_by_role("tabpanel", name=name)).to_contain_text(name)
    page.keyboard.press("Shift+Tab")  # the tabs are one stop
    assert page.evaluate("document.activeElement.closest('#tabs') === null")


def test_a_slow_press_of_cancel_is_a_press(visit: Callable[..., Page]) -> None:
    page = visit()
    page.locator("#more").evaluate("details => details.open = true")
    page.fill("#rough-steps", "200")
    page.click("#make")
    expect(page.locator("#status")).to_contain_text("Step", timeout=60_000)
    page.click("#help")
    page.keyboard.press("Escape")  # of the keys' dialog
    expect(page.locator("#status")).to_contain_text("Step")
    page.get_by_role("button", name="Cancel").click(delay=600)
    expect(page.locator("#status")).to_have_text("Cancelled.")
