"""The page in Debian's Chromium, without a screen: a camera that plays a file, the keyboard, a phone's size."""

import re
import time

import cv2
import numpy as np
from pages import LEFT, RIGHT, SIZE_HW, face, needs_chromium, pixels, wait_for_frame
from playwright.sync_api import expect
from serving import HOST, TOKEN, image_of, serving
from videos import write_clip

from salema.runtime import load
from salema.runtime.postprocess import Look, render, to_grey
from salema.runtime.serve.guard import Guard

pytestmark = needs_chromium
NEAR = 0.08  # a share of the width


def set_look(page, **values):
    for name, value in values.items():
        control = page.locator(f"[name={name}]")
        control.fill(str(value)) if name == "opacity" else control.select_option(str(value))
    wait_for_frame(page, int(page.locator("canvas").first.get_attribute("data-frame") or 0) + 2)


def centre(weights):
    """The centre of mass `(x, y)` as shares of width and height."""
    height, width = weights.shape
    total = weights.sum()
    return (weights.sum(0) @ np.arange(width)) / total / width, (weights.sum(1) @ np.arange(height)) / total / height


def hot(image):
    """How red a picture in jet is, where it is redder than blue."""
    blue, _, red = np.moveaxis(image.astype(float), -1, 0)
    return np.maximum(red - blue, 0)


def test_the_heat_map_is_over_the_face_of_the_camera_and_follows_it(opened, seen):
    """Side by side, the frame and opaque colours: where it is hottest, there is the face."""
    page = opened(seen)
    page.get_by_role("button", name="Use my camera").click()
    wait_for_frame(page, 2)
    set_look(page, view="side-by-side", opacity=1)
    found = {}
    deadline = time.monotonic() + 25
    while len(found) < 2 and time.monotonic() < deadline:
        frame, heat = np.hsplit(pixels(page), 2)
        assert frame.shape == (*SIZE_HW, 3)
        side = max((LEFT, RIGHT), key=lambda where: cv2.PSNR(frame, face(where)))
        if abs(centre(hot(heat) ** 2)[0] - side) < NEAR:  # just after the face has moved the memory is of both places
            found[side] = frame, heat
        page.wait_for_timeout(50)
    assert set(found) == {LEFT, RIGHT}
    for side, (frame, heat) in found.items():
        assert cv2.PSNR(frame, face(side)) > 25
        x, y = centre(hot(heat) ** 2)
        assert abs(x - side) < NEAR
        assert abs(y - 110 / SIZE_HW[0]) < 0.12
    assert (cv2.absdiff(found[LEFT][1], found[RIGHT][1]).max(axis=2) > 100).mean() > 0.02


def test_what_the_page_shows_is_what_load_gives(opened, seen, nano_model, tmp_path):
    """An image from a file: the overlay equals the one drawn here."""
    cv2.imwrite(str(tmp_path / "face.png"), face(0.5))
    with load(nano_model) as stream:
        grey = to_grey(stream.step(face(0.5)))
    page = opened(seen)
    page.get_by_label("Choose a file").set_input_files(tmp_path / "face.png")
    wait_for_frame(page)
    assert cv2.PSNR(pixels(page), render(face(0.5), grey)) > 25
    for look in (Look("map"), Look("overlay", "none", "turbo", 0.9), Look("side-by-side", "frame", "turbo", 0.9)):
        before = int(page.locator("canvas").get_attribute("data-frame"))
        for name in ("view", "normalise", "colormap"):
            page.locator(f"[name={name}]").select_option(getattr(look, name))
        page.get_by_role("slider", name="Opacity").fill(str(look.opacity))
        wait_for_frame(page, before)
        wanted = SIZE_HW[1] * (2 if look.view == "side-by-side" else 1)
        page.wait_for_function("width => document.querySelector('canvas').width === width", arg=wanted)
        page.wait_for_timeout(300)
        if look.normalise == "frame":
            assert cv2.PSNR(pixels(page), render(face(0.5), grey, look)) > 22
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("canvas")).to_have_count(0)


def test_a_video_file_is_played_through_the_network(opened, seen, tmp_path):
    path = write_clip(tmp_path / "two.mp4", np.stack([face(LEFT)] * 12 + [face(RIGHT)] * 12), rate=12)
    page = opened(seen)
    page.locator("#file").set_input_files(path)
    wait_for_frame(page, 3)
    page.locator("[name=opacity]").fill("1")
    sides, deadline = set(), time.monotonic() + 20
    while len(sides) < 2 and time.monotonic() < deadline:
        wait_for_frame(page, int(page.locator("canvas").get_attribute("data-frame")))
        x, _ = centre(hot(pixels(page)) ** 2)
        sides.add("left" if x < 0.42 else "right" if x > 0.58 else "between")
        sides.discard("between")
    assert sides == {"left", "right"}  # it is played in a loop
    page.get_by_role("button", name="Empty the memory").click()
    wait_for_frame(page, int(page.locator("canvas").get_attribute("data-frame")))


def test_a_file_that_is_none_is_told(opened, seen, tmp_path):
    (tmp_path / "words.png").write_bytes(b"no image")
    page = opened(seen)
    page.locator("#file").set_input_files(tmp_path / "words.png")
    expect(page.get_by_role("status")).to_have_text("This browser can't read words.png.")


def test_the_servers_sources_with_their_speed_and_snapshots(opened, served):
    page = opened(served)
    wait_for_frame(page, 5)
    figure = page.locator("#sources figure")
    expect(figure).to_have_count(1)
    expect(figure.locator(".name")).to_have_text("disc")
    expect(figure.locator(".speed")).to_have_text(re.compile(r"^\d+\.\d fps, \d+ ms \(99 %: \d+ ms\), \d+ dropped$"))
    expect(page.locator("#facts")).to_contain_text("ONNX Runtime")
    first = pixels(page)
    wait_for_frame(page, int(page.locator("canvas").get_attribute("data-frame")) + 3)
    assert (pixels(page) != first).mean() > 0.02  # the disc moves, and its map
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == "disc.jpg"
    assert image_of(download.value.path().read_bytes()).shape == (64, 96, 3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save map").click()
    assert download.value.suggested_filename == "disc_map.png"
    levels = image_of(download.value.path().read_bytes())
    assert (levels.shape, levels.dtype, levels.min(), levels.max()) == ((64, 96), np.uint8, 0, 255)
    wait_for_frame(page, int(page.locator("canvas").get_attribute("data-frame")) + 3)  # pictures go on


def test_by_keyboard_and_for_a_screen_reader(opened, seen):
    page = opened(seen)
    expect(page.locator("#facts")).to_contain_text("nano")
    names = [("combobox", "View"), ("combobox", "Colours"), ("combobox", "Range"), ("slider", "Opacity")]
    for role, name in names:
        expect(page.get_by_role(role, name=name)).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_have_text("salema")
    expect(page.get_by_role("region", name="Your camera, or a file")).to_be_visible()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        outline = page.evaluate(
            "getComputedStyle(document.activeElement.closest('label.button') || document.activeElement).outlineStyle"
        )
        if reached[-1]:
            assert outline != "none"
        if reached[-1] == "file":
            break
    assert reached == ["view", "colormap", "opacity", "normalise", "camera", "file"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    wait_for_frame(page)
    expect(page.get_by_role("img", name="Saliency of your camera")).to_be_visible()
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "55 %")


def test_on_a_phone(opened, seen, served):
    for one in (seen, served):
        page = opened(one, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
        expect(page.locator("#facts")).to_contain_text("ONNX")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for control in page.locator("button:visible, .button:visible, select:visible").all():
            assert control.bounding_box()["height"] >= 44
    page.get_by_role("button", name="Use my camera").tap()
    page.wait_for_function("() => document.querySelectorAll('canvas').length === 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_an_img_element_shows_mjpeg(opened, served):
    page = opened(served)
    page.evaluate("""() => {
        const image = Object.assign(new Image(), {id: 'plain', src: '/api/sources/0/mjpeg?opacity=0'});
        document.body.append(image);
    }""")
    shot = []
    page.wait_for_function("() => document.querySelector('#plain').naturalWidth === 96")
    for _ in range(4):
        png = page.locator("#plain").screenshot()
        shot.append(image_of(png))
        page.wait_for_timeout(130)
    assert any((one != shot[0]).any() for one in shot)  # the disc moves, in a loop of half a second


def test_the_token_is_asked_for(opened, model, small_clip):
    with serving(model, small_clip, guard=Guard(TOKEN)) as one:
        page = opened(one)
        page.get_by_label("Token").fill("wrong-wrong-wrong-wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        wait_for_frame(page, 1)
        assert TOKEN not in page.url
        assert page.evaluate("document.cookie") == ""  # scripts can't read it
        page.close()


def test_the_page_goes_on_after_a_restart(context, model, small_clip):
    """The connection is refused meanwhile, which the browser notes as an error."""
    page = context.new_page()
    with serving(model, small_clip) as one:
        page.goto(f"http://{HOST}:{one.port}/")
        wait_for_frame(page, 3)
    expect(page.get_by_role("status")).to_contain_text("trying again")
    page.evaluate("document.querySelector('canvas').dataset.frame = 0")
    with serving(model, small_clip, port=one.port):
        wait_for_frame(page, 2)
        expect(page.get_by_role("status")).to_be_empty()
