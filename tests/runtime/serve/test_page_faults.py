"""The page where something is amiss: too fast, too silent, too far."""

import base64
import threading
import time

import cv2
from pages import face, needs_chromium, pixels, wait_for_frame
from playwright.sync_api import expect
from serving import HOST, image_of, serving

from salema.runtime.serve.api import PAGES
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


def test_a_server_without_power_is_told_and_its_sockets_are_given_up(browser, served):
    """Nobody closes them, and all that comes is lost, until the server is back: then new ones are good."""
    context, lost, made, is_down = browser.new_context(), [], [], threading.Event()

    def relay(socket):
        made.append(socket)
        socket.connect_to_server().on_message(lambda message: None if socket in lost else socket.send(message))

    hurried = PAGES["app.js"][1].decode().replace("SILENT_MS = 5000", "SILENT_MS = 500").replace("= 2000", "= 300")
    try:
        page = context.new_page()
        page.route("**/static/app.js", lambda route: route.fulfill(content_type="text/javascript", body=hurried))
        page.route("**/api/status", lambda route: route.abort() if is_down.is_set() else route.continue_())
        page.route_web_socket("**/live", relay)
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
    context = browser.new_context()
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
        with serving(model, limits=Limits(max_megapixels=0.01)) as one:
            page.goto(f"http://{HOST}:{one.port}/")
            page.locator("#camera").click()
            expect(page.locator("#news")).to_contain_text("0.01 megapixels are the most")
            (client,) = one.service._clients
            wait_until(page, lambda: client._count > 5)  # frames that are refused are answered
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
    finally:
        context.close()
