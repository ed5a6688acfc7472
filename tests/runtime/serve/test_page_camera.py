"""The visitor's camera where something is amiss: refused frames, lost sockets, no memory, other cameras."""

from pages import hurry, needs_chromium, relay, wait_for_frame, wait_until
from playwright.sync_api import expect
from serving import HOST, serving

from salema.runtime.serve.limits import Limits

pytestmark = needs_chromium


def test_a_camera_goes_on_after_frames_that_are_refused_and_a_restart_and_is_let_go(context, model):
    faults = []
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


def test_sockets_that_only_seem_open_are_given_up_while_the_server_answers(context, served):
    """As after a machine slept, or changed its network: the live view goes on, and so does the camera."""
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


def test_pictures_that_fail_are_told_and_the_next_are_sent_and_shown(context, served):
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
