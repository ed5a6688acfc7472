"""The page of `salema-serve` in Debian's Chromium: what its camera shows, and what it draws."""

import base64
import shutil
import time

import cv2
import numpy as np
import pytest
from serving import image_of

from salema.runtime.serve.api import PAGES

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
SIZE_HW, FPS = (240, 320), 10
LEFT, RIGHT = 0.25, 0.75  # shares of the width


def face(where):
    """A face at a place of the width, on a wall."""
    rng = np.random.default_rng(3)
    noise = cv2.GaussianBlur(rng.normal(0, 12, (*SIZE_HW, 3)), (0, 0), 2)
    image = np.clip(np.array([90, 110, 100]) + noise, 0, 255).astype(np.uint8)
    x, y = int(where * SIZE_HW[1]), 110
    cv2.ellipse(image, (x, y), (38, 50), 0, 0, 360, (150, 180, 225), -1)
    for side in (-15, 15):
        cv2.circle(image, (x + side, y - 12), 6, (40, 40, 40), -1)
    cv2.ellipse(image, (x, y + 24), (16, 6), 0, 0, 180, (60, 60, 160), 3)
    return image


def write_camera(path):
    """Writes what the browser's camera shows: a face on the left for two seconds, then on the right."""
    height, width = SIZE_HW
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for where in (LEFT, RIGHT):
            planes = cv2.cvtColor(face(where), cv2.COLOR_BGR2YUV_I420).tobytes()
            file.write((b"FRAME\n" + planes) * (2 * FPS))
    return path


def pixels(page):
    """What the first canvas shows, BGR."""
    url = page.locator("canvas").first.evaluate("canvas => canvas.toDataURL('image/png')")
    return image_of(base64.b64decode(url.partition(",")[2]))[..., :3]


def wait_for_frame(page, after=0):
    page.wait_for_function("after => Number(document.querySelector('canvas')?.dataset.frame) > after", arg=after)


def wait_until(page, true):
    deadline = time.monotonic() + 15
    while not true() and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert true()


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
