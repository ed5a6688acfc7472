"""The page where something is amiss: too fast, too silent, too far."""

import base64
import threading

import cv2
from pages import face, hurry, needs_chromium, pixels, relay, wait_for_frame, wait_until
from playwright.sync_api import expect
from serving import HOST, TOKEN, image_of, serving

from salema.runtime.serve.guard import Guard
from salema.runtime.serve.limits import Limits

pytestmark = needs_chromium


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


def test_a_server_without_power_is_told_and_its_sockets_are_given_up(context, served):
    """Nobody closes them, and all that comes is lost, until the server is back: then new ones are good."""
    is_down = threading.Event()
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


def test_a_hidden_page_rests_when_the_server_goes_and_reopens_when_it_is_shown(context, model, small_clip):
    asked = []
    show = """how => {
        Object.defineProperty(document, "hidden", { value: how.includes("hidden"), configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
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


def test_a_page_whose_cookie_has_ended_asks_for_the_token(context, model, small_clip):
    """With no error of its own; and so does one whose connection is lost then."""
    faults = []
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
