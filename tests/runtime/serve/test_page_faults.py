"""The page where something is amiss: too fast, too silent, too far."""

import base64
import threading
import time

import cv2
from pages import face, needs_chromium, pixels, wait_for_frame
from playwright.sync_api import expect
from serving import HOST, TOKEN, image_of, serving

from salema.runtime.serve.api import PAGES
from salema.runtime.serve.guard import Guard
from salema.runtime.serve.limits import Limits

pytestmark = needs_chromium


def wait_until(page, true):
    deadline = time.monotonic() + 15
    while not true() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert true()


def drop(page, path):
    """Drops an image on the page, as from another window."""
    page.evaluate(
        """data => {
        const carried = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        carried.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true, cancelable: true }));
    }""",
        base64.b64encode(path.read_bytes()).decode(),
    )


def test_a_still_image_follows_the_slider_to_its_end_and_then_rests(opened, model, tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), face(0.5))
    with serving(model, limits=Limits(max_fps=5, idle_s=1)) as one:
        page = opened(one)
        page.locator("#file").set_input_files(tmp_path / "face.png")
        wait_for_frame(page)
        for opacity in (0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0):  # more than a second's worth
            page.locator("[name=opacity]").fill(str(opacity))
        wait_until(page, lambda: cv2.PSNR(pixels(page), face(0.5)) > 25)  # the frame alone
        wait_until(page, lambda: one.service.metrics.streams._value.get() == 0)  # it was silent for too long
        page.wait_for_timeout(800)
        expect(page.locator("#news")).to_be_empty()
        assert one.service.metrics.streams._value.get() == 0  # it does not come again for nothing
        page.locator("[name=view]").select_option("side-by-side")
        page.wait_for_function("() => document.querySelector('canvas').width === 640")
        wait_until(page, lambda: one.service.metrics.streams._value.get() == 0)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save map of face.png").click()
        assert image_of(download.value.path().read_bytes()).ndim == 2
        page.close()  # before the server: it would note that it is gone


def test_a_sentence_stays_beside_a_source_that_plays(opened, served, tmp_path):
    (tmp_path / "words.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "face.png"), face(0.5))
    page = opened(served)
    wait_for_frame(page, 1)
    page.locator("#file").set_input_files(tmp_path / "words.png")
    expect(page.locator("#news")).to_have_text("This browser can't read words.png.")
    wait_for_frame(page, int(page.locator("canvas").first.get_attribute("data-frame")) + 5)
    expect(page.locator("#news")).to_have_text("This browser can't read words.png.")
    drop(page, tmp_path / "face.png")
    expect(page.locator("#own figure")).to_have_count(1)
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#camera")).to_be_focused()
    asked = []
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.locator("[name=view]").select_option("map")
    page.wait_for_timeout(300)
    assert asked == []  # what was stopped does not come again


HURRY = {
    "SILENT_MS = 5000": "SILENT_MS = 500",
    "STUCK_MS = 20000": "STUCK_MS = 1000",
    "POLL_MS = 2000": "POLL_MS = 300",
}


def hurry(page):
    """Has the page wait less."""
    code = PAGES["app.js"][1].decode()
    for given, less in HURRY.items():
        assert given in code
        code = code.replace(given, less)
    page.route("**/static/app.js", lambda route: route.fulfill(content_type="text/javascript", body=code))


def relay(page, pattern):
    """Has the page's sockets go through here; returns those made so far, and those of which all that comes is lost."""
    made, lost = [], []

    def pass_on(socket):
        made.append(socket)
        socket.connect_to_server().on_message(lambda message: None if socket in lost else socket.send(message))

    page.route_web_socket(pattern, pass_on)
    return made, lost


def test_a_server_without_power_is_told_and_its_sockets_are_given_up(browser, served):
    """Nobody closes them, and all that comes is lost, until the server is back: then new ones are good."""
    context, is_down = browser.new_context(), threading.Event()
    try:
        page = context.new_page()
        hurry(page)
        page.route("**/api/status", lambda route: route.abort() if is_down.is_set() else route.continue_())
        made, lost = relay(page, "**/live")
        page.goto(f"http://{HOST}:{served.port}/")
        wait_for_frame(page, 1)
        lost += made
        is_down.set()
        expect(page.locator("#news")).to_have_text("The server does not answer; trying again.")
        wait_for_frame(page, int(page.locator("canvas").get_attribute("data-frame")))
        assert len(made) >= 2
        is_down.clear()
        expect(page.locator("#news")).to_be_empty()
    finally:
        context.close()


def test_a_source_that_is_over_is_told_and_not_asked_again(opened, model, small_clip, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without GStreamer
    with serving(model, "videotestsrc ! autovideosink", small_clip) as one:
        page = opened(one)
        expect(page.locator(".state").first).to_contain_text("gst-launch")
        asked = []
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.wait_for_timeout(800)
        assert asked == []
        expect(page.locator("#news")).to_be_empty()
        page.close()


def test_a_camera_goes_on_after_frames_that_are_refused_and_a_restart_and_is_let_go(browser, model):
    context, faults = browser.new_context(), []
    context.add_init_script("""
        const devices = navigator.mediaDevices;
        const open = devices.getUserMedia.bind(devices);
        window.tracks = [];
        devices.getUserMedia = async (wanted) => {
            const stream = await open(wanted);
            window.tracks.push(...stream.getTracks());
            return stream;
        };
    """)
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        with serving(model, limits=Limits(max_megapixels=0.01)) as one:
            page.goto(f"http://{HOST}:{one.port}/")
            page.locator("#camera").click()
            expect(page.locator("#news")).to_contain_text("0.01 megapixels are the most")
            (client,) = one.service._clients
            wait_until(page, lambda: client._count > 5)  # frames that are refused are answered
        page.locator("#anew").click()  # while nothing is connected: the next stream's memory is empty anyway
        with serving(model, port=one.port):
            wait_for_frame(page, 3)
            page.evaluate("window.tracks[0].dispatchEvent(new Event('ended'))")  # it was unplugged
            expect(page.locator("#news")).to_contain_text("The camera has stopped")
            expect(page.locator("canvas")).to_have_count(0)
            page.locator("#camera").click()
            wait_for_frame(page)
            page.locator("#stop").click()
            states = page.evaluate("window.tracks.map((track) => track.readyState)")
            assert states == ["ended", "ended"]  # its light is off
        assert faults == []
    finally:
        context.close()


def test_sockets_that_only_seem_open_are_given_up_while_the_server_answers(browser, served):
    """As after a machine slept, or changed its network: the live view goes on, and so does the camera."""
    context = browser.new_context()
    try:
        page = context.new_page()
        hurry(page)
        made, lost = relay(page, "**/api/**")
        page.goto(f"http://{HOST}:{served.port}/")
        page.locator("#camera").click()
        panels = page.locator("canvas").all
        frames = lambda: [int(panel.get_attribute("data-frame") or 0) for panel in panels()]  # noqa: E731
        wait_until(page, lambda: len(frames()) == 2 and min(frames()) > 1)
        assert len(made) == 2
        lost += made
        page.wait_for_timeout(300)  # what was on its way
        for panel in panels():
            panel.evaluate("canvas => { canvas.dataset.frame = 0; }")
        wait_until(page, lambda: min(frames()) > 1)
        assert len(made) >= 4
        expect(page.locator("#news")).to_be_empty()
    finally:
        context.close()


def test_a_hidden_page_rests_when_the_server_goes_and_reopens_when_it_is_shown(browser, model, small_clip):
    context, asked = browser.new_context(), []
    show = """how => {
        Object.defineProperty(document, "hidden", { value: how.includes("hidden"), configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    try:
        page = context.new_page()
        with serving(model, small_clip) as one:
            page.goto(f"http://{HOST}:{one.port}/")
            wait_for_frame(page, 1)
            page.evaluate(show, ["hidden"])
        expect(page.locator("#news")).to_contain_text("trying again")
        with serving(model, small_clip, port=one.port):
            page.on("websocket", lambda socket: asked.append(socket.url))
            page.evaluate("document.querySelector('canvas').dataset.frame = 0")
            page.wait_for_timeout(1500)
            assert asked == []
            page.evaluate(show, [])
            wait_for_frame(page, 1)
            assert len(asked) == 1
            expect(page.locator("#news")).to_be_empty()
    finally:
        context.close()


def test_pictures_that_fail_are_told_and_the_next_are_sent_and_shown(browser, served):
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://{HOST}:{served.port}/")
        page.locator("#camera").click()
        camera = page.locator("#own canvas")
        wait_until(page, lambda: int(camera.get_attribute("data-frame") or 0) > 1)
        page.evaluate("() => { window.whole = HTMLCanvasElement.prototype.getContext; }")
        # As where memory is short: for what is sent, whose canvas is in no page, and for what is shown.
        for fails, sentence in (
            ("!this.isConnected", "A frame can't be sent ("),
            ("this.isConnected", "A picture can't be shown ("),
        ):
            page.evaluate(
                """fails => {
                const isWithout = new Function(`return ${fails}`);
                HTMLCanvasElement.prototype.getContext = function (...asked) {
                    return isWithout.call(this) ? null : window.whole.apply(this, asked);
                };
            }""",
                fails,
            )
            expect(page.locator("#news")).to_contain_text(sentence)
        page.evaluate("() => { HTMLCanvasElement.prototype.getContext = window.whole; }")
        before = [int(one.get_attribute("data-frame")) for one in page.locator("canvas").all()]
        wait_until(
            page,
            lambda: all(
                int(one.get_attribute("data-frame")) > frame + 2
                for one, frame in zip(page.locator("canvas").all(), before, strict=True)
            ),
        )
        expect(page.locator("#news")).to_be_empty()
    finally:
        context.close()


def test_cameras_that_come_and_go_are_listed(opened, seen):
    page = opened(seen)
    change = """names => {
        const made = names.map((label) => ({ kind: "videoinput", deviceId: label, label }));
        navigator.mediaDevices.enumerateDevices = async () => made;
        navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
    }"""
    page.evaluate(change, ["one", "two"])
    page.locator("#camera").click()
    wait_for_frame(page)
    options = page.locator("#cameras option")
    expect(options).to_have_text(["one", "two"])
    page.evaluate(change, ["one", "two", "three"])
    expect(options).to_have_text(["one", "two", "three"])
    page.locator("#cameras select").focus()
    page.evaluate(change, ["one"])
    expect(page.locator("#cameras")).to_be_hidden()
    expect(page.locator("#camera")).to_be_focused()
    page.evaluate(change, ["one", "two"])
    expect(page.locator("#cameras")).to_be_visible()
    page.locator("#stop").click()
    page.evaluate(change, ["one", "two", "three"])
    expect(page.locator("#cameras")).to_be_hidden()


def test_a_page_whose_cookie_has_ended_asks_for_the_token(browser, model, small_clip):
    """With no error of its own; and so does one whose connection is lost then."""
    context, faults = browser.new_context(), []
    try:
        with serving(model, small_clip, guard=Guard(TOKEN)) as one:
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            hurry(page)
            page.goto(f"http://{HOST}:{one.port}/")
            for open_again in (lambda: None, page.reload):
                page.get_by_label("Token").fill(TOKEN)
                page.keyboard.press("Enter")
                wait_for_frame(page, 1)
                context.clear_cookies()
                open_again()
                expect(page.get_by_label("Token")).to_be_visible()
            page.close()
        assert faults == []
    finally:
        context.close()
