from urllib.parse import urlsplit

import pytest
from pages import CHROMIUM, write_camera
from serving import HOST, serving


@pytest.fixture(scope="module")
def served(model, small_clip):
    """A server with one source."""
    with serving(model, small_clip) as one:
        yield one


@pytest.fixture(scope="module")
def seen(nano_model):
    """A server without sources, whose maps make sense."""
    with serving(nano_model) as one:
        yield one


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, with a camera."""
    from playwright.sync_api import sync_playwright

    camera = write_camera(tmp_path_factory.mktemp("camera") / "face.y4m")
    arguments = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--disable-gpu"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*arguments, f"--use-file-for-fake-video-capture={camera}", "--no-sandbox"]
        )
        yield launched
        launched.close()


@pytest.fixture
def context(browser):
    """A browser with nothing kept. Its faults are told by the test itself."""
    made = browser.new_context()
    yield made
    made.close()


@pytest.fixture
def opened(browser):
    """Opens the page of a server; no error of the page, and no request to another host, goes unseen."""
    faults, contexts = [], []

    def open_page(served, **options):
        context = browser.new_context(accept_downloads=True, **options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        ours = f"{HOST}:{served.port}"
        foreign = lambda request: urlsplit(request.url).netloc not in {ours, ""}  # noqa: E731
        page.on("request", lambda request: faults.append(request.url) if foreign(request) else None)
        page.goto(f"http://{ours}/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
