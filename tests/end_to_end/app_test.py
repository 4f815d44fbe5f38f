"""The page in a real browser, with the smallest model: what a person does there, start to end."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect, sync_playwright

from durian_jax.app.people import EXAMPLES
from durian_jax.cli.main import main
from input_pipeline.dataset.cases import CaseSet
from input_pipeline.media import video
from input_pipeline.media.pictures import read_picture, write_picture
from tests.app.compare_test import write_report

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
SECONDS = 240  # to wait for anything, on a busy machine

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def server(random_weights, prepared_dataset, tmp_path_factory):
    """Address of a page with the smallest model, a report and a data set, and the folder of its
    files."""
    port, folder = _free_port(), tmp_path_factory.mktemp("served")
    write_report(folder / "ours", "ours", CaseSet.read(EXAMPLES).sha256())
    command = [sys.executable, "-m", "durian_jax.cli.main", "app", "--port", str(port)]
    command += ["--checkpoint", str(random_weights)]
    command += ["--show", str(folder / "ours"), "--show", str(prepared_dataset)]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(folder)}
        )
    end = time.time() + SECONDS
    while "Ctrl-C" not in (folder / "log").read_text():
        assert process.poll() is None and time.time() < end, (folder / "log").read_text()
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}", folder
    process.terminate()
    process.wait(SECONDS)
    assert not list(folder.glob("durian-app-*")), "temporary files are left behind"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, server):
    """A function that opens the page in a new tab."""
    tabs = []

    def open_tab(width=1200):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tabs.append(tab)
        tab.set_default_timeout(SECONDS * 1000)
        expect.set_options(timeout=SECONDS * 1000)
        tab.asked = []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(server[0])
        tab.get_by_role("button", name="2. Animate").wait_for()
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="module")
def driver(talking_head, tmp_path_factory):
    """Path of a clip of two frames."""
    path = tmp_path_factory.mktemp("driver") / "talk.mp4"
    video.write_video(path, talking_head(count=2), Fraction(25))
    return path


def _panel(tab):
    return tab.get_by_role("tabpanel").first


def _give(tab, label, path):
    """Uploads a file to the field of that label."""
    block = _panel(tab).locator(".block").filter(has=tab.get_by_text(label, exact=False)).first
    block.locator("input[type=file]").set_input_files(str(path))


def _take_back(tab):
    """Empties the first photo that is there."""
    remove = tab.get_by_role("button", name="Clear").or_(tab.get_by_label("Remove Image"))
    remove.first.click()


def _fill(tab, portrait, attribute, driver, steps="2"):
    _give(tab, "Portrait: the person", portrait)
    _give(tab, "Attribute photo 1", attribute)
    _give(tab, "Driver: a clip", driver)
    expect(tab.get_by_text("talk").first).to_be_visible()
    _panel(tab).get_by_role("button", name="Options of motion").click()
    _panel(tab).get_by_label("steps").first.fill(steps)


def _press(tab, name):
    _panel(tab).get_by_role("button", name=name).click()


def _look(tab):
    _press(tab, "1. Look")
    expect(_panel(tab).get_by_role("button", name="2. Animate")).to_be_enabled()


def _now(tab):
    return _panel(tab).locator(".now").first


def _download(tab, name, folder):
    with tab.expect_download() as waiting:
        _panel(tab).locator(f"a[download*='{name}']").first.click()
    path = folder / name
    waiting.value.save_as(path)
    return path


def _check_that_files_go(tab, folder, *names):
    """Closes the tab: no file of these names is left. What the brush of another tab sent still
    lies there, for an hour."""
    end = time.time() + SECONDS

    def left():
        files = (path.name for path in folder.glob("durian-app-*/**/*") if path.is_file())
        return {*names} & {*files}

    assert left() == {*names}
    tab.goto("about:blank")
    while left() and time.time() < end:
        time.sleep(0.5)
    assert not left(), "files of a closed tab"


# Waits until a frame is there: its width, the clip's seconds, and the lightest value of a pixel.
_PLAYED = """async video => {
    while (video.readyState < 2) await new Promise(done => setTimeout(done, 100));
    const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    pen.drawImage(video, 0, 0);
    const values = pen.getImageData(0, 0, canvas.width, canvas.height).data;
    const lightest = Math.max(...values.filter((_, i) => i % 4 < 3));
    return [canvas.width, video.duration, lightest];
}"""


# Controls of which a screen reader could not say what they are.
_UNNAMED = """() => [...document.querySelectorAll("input, textarea, button, [role=slider]")]
    .filter(e => e.offsetParent && e.type != "file" && !e.disabled)
    .filter(e => !(e.ariaLabel || e.title || e.innerText.trim() || e.querySelector("img")?.alt))
    .filter(e => !e.getAttribute("aria-labelledby"))
    .filter(e => ![...(e.labels ?? [])].some(label => label.innerText.trim()))
    .map(e => e.outerHTML)"""


# Goes on with what has the focus; false behind the last.
_REACHED = """() => {
    const one = document.activeElement;
    one.dataset.reached = parseFloat(getComputedStyle(one).outlineWidth) > 2;
    return one != document.body;
}"""
# Controls that were not, or could not be seen to have it.
_UNREACHED = """() => [...document.querySelectorAll("input, textarea, button, a[href]")]
    .filter(e => e.offsetParent && e.type != "file" && !e.disabled)
    .filter(e => !e.closest("[aria-hidden=true]") && e.dataset.reached != "true")
    .map(e => e.outerHTML)"""


def test_from_photos_to_a_video_that_plays(
    opened, server, artefacts, portrait_picture, driver, tmp_path
):
    tab = opened()
    _fill(tab, portrait_picture, portrait_picture, driver)
    _look(tab)
    for caption in ("portrait: crop and keypoints", "hair: what is taken", "what is left of the"):
        expect(tab.get_by_text(caption).first).to_be_visible()
    tab.screenshot(path=artefacts / "app_look.png", full_page=True)
    _press(tab, "2. Animate")
    expect(_now(tab)).to_contain_text("Done: 2 frames")
    player = _panel(tab).locator("video").first
    expect(player).to_be_visible()
    width, duration, lightest = player.evaluate(_PLAYED)
    assert width == 32 and abs(duration - 2 / 25) < 0.05 and lightest > 20
    settings = json.loads(_download(tab, "settings.json", tmp_path).read_text())
    assert settings["steps"] == 2 and settings["attributes"] == ["astronaut.png:hair"]
    assert "/tmp" not in json.dumps(settings)
    frames = [*video.read_frames(_download(tab, "out.mp4", tmp_path))]
    assert len(frames) == 2 and frames[0].shape == (32, 32, 3)
    block = _panel(tab).locator(".block").filter(has_text="The same on the command line")
    line = block.locator("textarea").input_value()
    assert line.startswith("durian animate --portrait astronaut.png --attribute astronaut.png:hair")
    assert "--steps 2" not in line and "/tmp" not in line  # 2 is the model's own
    assert "/tmp" not in tab.locator("body").inner_text()
    tab.screenshot(path=artefacts / "app_result.png", full_page=True)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_timeout(1000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.screenshot(path=artefacts / "app_390.png", full_page=True)
    hosts = {url.split("/")[2] for url in tab.asked if url.startswith(("http", "ws"))}
    assert hosts == {server[0].split("/")[2]}
    _check_that_files_go(tab, server[1], "out.mp4", "picture.png", "astronaut.png", "talk.mp4")


def test_a_mask_is_painted_and_the_others_stay_as_they_are(
    opened, artefacts, portrait_picture, driver, tmp_path
):
    tab = opened()
    _fill(tab, portrait_picture, portrait_picture, driver)
    _look(tab)
    _press(tab, "Paint the mask: portrait")
    canvas = tab.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    tab.wait_for_timeout(3000)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x - 60, y + 60)
    tab.mouse.down()
    tab.mouse.move(x + 60, y + 90, steps=8)
    tab.mouse.up()
    tab.wait_for_timeout(3000)
    tab.screenshot(path=artefacts / "app_masks.png", full_page=True)
    _press(tab, "2. Animate")
    expect(_now(tab)).to_contain_text("Done: 2 frames")
    settings = json.loads(_download(tab, "settings.json", tmp_path).read_text())
    assert settings["portrait_mask"] == "portrait_mask.png"
    assert settings["attributes"] == ["astronaut.png:hair"], "only the portrait was painted"
    painted = read_picture(_download(tab, "portrait_mask.png", tmp_path))
    assert painted.shape == read_picture(portrait_picture).shape and painted.any()


def test_a_slider_goes_through_an_interpolation(opened, artefacts, portrait_picture, driver):
    tab = opened()
    tab.get_by_role("tab", name="Interpolate").click()
    for label in ("Portrait: the person", "From photo", "To photo"):
        _give(tab, label, portrait_picture)
    _give(tab, "Driver: a clip", driver)
    expect(_panel(tab).get_by_text("talk").first).to_be_visible()
    _panel(tab).get_by_label("Alphas").fill("0,0.5")
    _press(tab, "1. Look")
    expect(_panel(tab).get_by_role("button", name="2. Interpolate")).to_be_enabled()
    _press(tab, "2. Interpolate")
    expect(_now(tab)).to_contain_text("Done: 2 frames")
    player = _panel(tab).locator("video").first
    expect(player).to_have_attribute("src", re.compile(r"/out_0\.mp4$"))
    _panel(tab).get_by_label("Which alpha").first.fill("1")
    expect(player).to_have_attribute("src", re.compile(r"/out_0\.5\.mp4$"))
    tab.screenshot(path=artefacts / "app_interpolate.png", full_page=True)


def test_an_example_can_be_looked_at_with_the_keyboard_alone(opened):
    tab = opened()
    for name, shown in (("Example: hair+glasses", "driving"), ("1. Look", "glasses: what is")):
        _panel(tab).get_by_role("button", name=name).focus()
        tab.keyboard.press("Enter")
        expect(_panel(tab).get_by_text(shown).first).to_be_visible()
    tab.get_by_role("button", name="Options of motion").press("Enter")
    expect(tab.get_by_label("steps").first).to_be_visible()
    for name in ("Portrait: the person", "Driver: a clip", "Attribute photo 1"):
        expect(tab.get_by_role("group", name=name)).to_be_visible()
    assert not tab.evaluate(_UNNAMED)
    tab.get_by_role("tab", name="Animate").focus()
    while tab.evaluate(_REACHED):
        tab.keyboard.press("Tab")
    assert not tab.evaluate(_UNREACHED)


def test_what_is_wrong_is_said_beside_the_field_and_the_page_goes_on(
    opened, portrait_picture, driver, tmp_path, artefacts
):
    broken, alone = tmp_path / "broken.png", tmp_path / "nobody.png"
    broken.write_bytes(portrait_picture.read_bytes()[:3000])
    tab = opened()
    _give(tab, "Portrait: the person", broken)
    wrong = _panel(tab).locator(".wrong")
    expect(wrong).to_contain_text("broken.png: damaged picture")
    assert "/" not in wrong.inner_text() and "Traceback" not in tab.content()
    tab.screenshot(path=artefacts / "app_broken.png", full_page=True)
    _take_back(tab)
    expect(wrong).to_have_count(0)
    _press(tab, "1. Look")
    expect(wrong).to_contain_text("portrait is missing: give a photo")
    write_picture(alone, np.full((128, 128, 3), 90, np.uint8))
    _fill(tab, alone, portrait_picture, driver)
    _press(tab, "1. Look")
    expect(wrong).to_contain_text("nobody.png: no face found")
    _take_back(tab)
    _give(tab, "Portrait: the person", portrait_picture)
    _look(tab)
    expect(wrong).to_have_count(0)
    for name, text, said in (("steps", "0", "steps is 0: use 1 to"), ("smooth", "-1", "smooth -1")):
        field = _panel(tab).get_by_label(name).first
        whole, before = tab.locator(".column").filter(has=field).last, field.input_value()
        field.fill(text)
        _panel(tab).get_by_role("button", name="Options of motion").click()
        expect(field).to_be_hidden()
        _press(tab, "2. Animate")
        expect(whole.locator(".wrong")).to_contain_text(said)
        expect(field).to_be_visible()
        tab.screenshot(path=artefacts / "app_options.png", full_page=True)
        field.fill(before)
    _look(tab)
    expect(wrong).to_have_count(0)


def test_two_tabs_queue_and_a_job_can_be_stopped(opened, portrait_picture, driver):
    first, second = opened(), opened()
    _fill(first, portrait_picture, portrait_picture, driver, steps="900")
    _look(first)
    _fill(second, portrait_picture, portrait_picture, driver)
    _look(second)
    _press(first, "2. Animate")
    expect(_now(first)).to_contain_text("Denoising: step")
    _press(second, "2. Animate")
    expect(_now(second)).to_contain_text("Waiting: 1 job before yours")
    _press(first, "Stop")
    expect(_now(first)).to_contain_text("Stopped.")
    expect(_now(second)).to_contain_text("Done: 2 frames")


def test_cases_of_a_report_are_sorted_and_seen(opened, artefacts):
    tab = opened()
    tab.get_by_role("tab", name="Compare").click()
    cases = tab.get_by_role("tabpanel").filter(has_text="Cases, worst first")
    rows = cases.get_by_role("grid", name="Cases, worst first").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("0001")  # by "ours", 10 dB; above it the heads
    cases.get_by_label("Worst first, by").click()
    tab.get_by_role("option", name="copy").click()
    expect(rows.nth(2)).to_contain_text("0000")  # 11, 12, 13 dB
    for caption in ("driver", "truth", "paste"):
        expect(cases.get_by_text(caption, exact=True).first).to_be_visible()
    tab.screenshot(path=artefacts / "app_compare.png", full_page=True)


def test_people_of_a_data_set_are_seen_by_what_they_wear(opened, server, artefacts):
    tab = opened()
    tab.get_by_role("tab", name="Data").click()
    expect(_panel(tab).get_by_text("4 people, 4 clips; 4 chosen")).to_be_visible()
    _panel(tab).get_by_label("Attribute").click()
    tab.get_by_role("option", name="glasses").click()
    expect(_panel(tab).get_by_text("4 people, 4 clips; 1 chosen")).to_be_visible()
    for label in ("Clips: frames", "What Durian"):
        picture = _panel(tab).get_by_role("img", name=label)
        expect(picture).to_be_visible()
        assert picture.evaluate("async image => (await image.decode(), image.naturalWidth)") > 144
    assert not tab.evaluate(_UNNAMED)
    tab.screenshot(path=artefacts / "app_data.png", full_page=True)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_timeout(1000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    _check_that_files_go(tab, server[1], "picture.png")


def test_a_door_that_is_open_to_others_is_refused(capsys):
    assert main(["app", "--listen", "0.0.0.0"]) == 2
    assert capsys.readouterr().err == (
        "durian app: --listen 0.0.0.0: others could use this machine: give a password, too\n"
    )
