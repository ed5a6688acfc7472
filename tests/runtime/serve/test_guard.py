"""Who may ask: token, cookie, host and origin; and what no request can reach."""

import io
import json
import logging
import socket as sockets
import string
import time
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import HOST, TOKEN, jpeg, result, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus

from salema.runtime.errors import UsageError
from salema.runtime.serve.guard import COOKIE, Guard, check_origins, check_token_for, read_token

GUARDED = (
    "/api/status",
    "/metrics",
    "/openapi.json",
    "/api/sources/0/picture",
    "/api/sources/0/mjpeg",
    "/static/index.html",
)
OPEN = ("/", "/healthz", "/readyz", "/static/app.js", "/static/style.css", "/static/icon.svg")


@pytest.fixture(scope="module")
def locked(model, small_clip):
    with serving(model, small_clip, guard=Guard(TOKEN)) as one:
        yield one


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", GUARDED)
def test_without_the_token_nothing_is_told(locked, path):
    for headers in ({}, bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer(""), {"Cookie": f"{COOKIE}={TOKEN}"}):
        answer = locked.ask(path, **headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert TOKEN.encode() not in answer.body
    assert locked.ask(f"{path}?token={TOKEN}").status == 401  # a URL is no place for it


@pytest.mark.parametrize("path", ["/api/status", "/metrics", "/openapi.json", "/api/sources/0/picture"])
def test_with_the_token_it_answers(locked, path):
    assert locked.ask(path, **bearer(TOKEN)).status == 200


@pytest.mark.parametrize("path", OPEN)
def test_what_anyone_may_see_holds_nothing(locked, path):
    answer = locked.ask(path)
    assert answer.status == 200
    assert b"disc" not in answer.body
    assert b"index" not in answer.body


def test_images_want_the_token(locked, disc):
    assert locked.ask("/api/image", "POST", jpeg(disc[0])).status == 401
    assert locked.ask("/api/image", "POST", jpeg(disc[0]), **bearer(TOKEN)).status == 200


def log_in(served, token):
    body = f"token={token}"
    return served.ask("/login", "POST", body, Content_Type="application/x-www-form-urlencoded")


def test_the_form_gives_a_cookie_that_is_not_the_token(locked):
    wrong = log_in(locked, "wrong-wrong-wrong-wrong")
    assert (wrong.status, wrong.headers["Location"], wrong.headers["Set-Cookie"]) == (303, "/#wrong", None)
    right = log_in(locked, TOKEN)
    assert (right.status, right.headers["Location"]) == (303, "/")
    cookie, *rest = right.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(rest)
    assert TOKEN not in cookie
    assert locked.ask("/api/status", Cookie=cookie).status == 200
    assert b"<canvas" in locked.ask("/", Cookie=cookie).body
    assert b"password" in locked.ask("/").body
    with locked.connect("/api/sources/0/live", additional_headers={"Cookie": cookie}) as socket:
        socket.send('{"type": "next"}')
        assert result(socket)[0]["form"] == "jpeg"
    name, _, value = cookie.partition("=")
    until, _, signature = value.partition(".")
    flipped = f"{signature[:-1]}{'1' if signature[-1] == '0' else '0'}"
    for forged in (f"{int(until) + 1}.{signature}", f"{until}.{flipped}", until, ".", "x.y"):
        assert locked.ask("/api/status", Cookie=f"{name}={forged}").status == 401


def test_a_cookie_ends(monkeypatch):
    guard = Guard(TOKEN)
    cookie = guard.new_cookie()
    assert guard.is_cookie(cookie)
    assert not Guard("another-token-of-this").is_cookie(cookie)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 8 * 24 * 3600)
    assert not guard.is_cookie(cookie)


@pytest.mark.parametrize("path", ["/api/stream", "/api/sources/0/live"])
def test_a_socket_wants_the_token_in_a_header_or_in_its_first_message(locked, disc, path):
    first = jpeg(disc[0]) if "stream" in path else '{"type": "next"}'
    with locked.connect(path, additional_headers=bearer(TOKEN)) as socket:
        socket.send(first)
        assert result(socket)[0]["frame"] >= 1
    with locked.connect(path) as socket:
        socket.send(json.dumps({"type": "token", "token": TOKEN}))
        socket.send(first)
        assert result(socket)[0]["frame"] >= 1
    for message in (first, json.dumps({"type": "token", "token": TOKEN + "x"}), '{"type": "token"}'):
        with locked.connect(path) as socket:
            socket.send(message)
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(10)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "token: wrong, or missing")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost", "http://["]
)
def test_pages_of_other_servers_are_refused(served, disc, origin):
    with pytest.raises(InvalidStatus) as refused:
        served.connect(origin=origin)
    assert refused.value.response.status_code == 403
    assert served.ask("/api/image", "POST", jpeg(disc[0]), Origin=origin).status == 403


def test_its_own_page_is_let_in(served, disc):
    origin = f"http://{HOST}:{served.port}"
    assert served.ask("/api/image", "POST", jpeg(disc[0]), Origin=origin).status == 200
    with served.connect(origin=origin) as socket:
        socket.send(jpeg(disc[0]))
        assert result(socket)[0]["frame"] == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("localhost:8008", "LOCALHOST", "127.0.0.1", "[::1]:8008", "192.168.1.7:80")),
        *((name, 421) for name in ("evil.example", "evil.example:8008", "localhost.evil.example", "", "[::1", "a:b:c")),
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(served, host, status):
    assert served.ask("/api/status", Host=host).status == status
    assert served.ask("/", Host=host).status == status
    assert served.ask("/healthz", Host=host).status == 200


def test_named_hosts_and_origins_are_let_in(model, disc):
    guard = Guard(None, frozenset({"camera.example"}), check_origins(["https://Dash.example"]))
    with serving(model, guard=guard) as one:
        assert one.ask("/api/status", Host="Camera.example:443").status == 200
        answer = one.ask("/api/image", "POST", jpeg(disc[0]), Origin="https://dash.example")
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://dash.example")
        assert "X-Frame" in answer.headers["Access-Control-Expose-Headers"]
        assert one.ask("/api/image", "POST", jpeg(disc[0]), Origin="http://dash.example").status == 403


def test_every_answer_has_the_headers_of_a_careful_page(served):
    for path in ("/", "/api/status", "/static/app.js", "/missing", "/api/sources/7/picture"):
        headers = served.ask(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Server"] is None


def test_a_browser_that_asks_for_another_site_is_told_which_may(model):
    """It asks without the token, before it sends one."""
    guard = Guard(TOKEN, origins=check_origins(["https://dash.example"]))
    wanted = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    with serving(model, guard=guard) as one:
        answer = one.ask("/api/image", "OPTIONS", Origin="https://dash.example", **wanted)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://dash.example")
        assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        answer = one.ask("/api/image", "OPTIONS", Origin="https://evil.example", **wanted)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (400, None)
        for origin, told in (("https://dash.example", "https://dash.example"), ("https://evil.example", None)):
            answer = one.ask("/api/status", Origin=origin)
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (401, told)


def test_those_who_have_not_shown_the_token_are_few_and_say_little(model):
    with serving(model, guard=Guard(TOKEN)) as one, ExitStack() as stack:
        with one.connect() as socket:
            with pytest.raises(ConnectionClosed) as closed:
                socket.send(bytes(600_000))
                socket.recv(10)
            assert closed.value.rcvd is None  # cut off, and not after it was read
        for _ in range(16):
            stack.enter_context(one.connect())
        with pytest.raises(InvalidStatus) as refused:
            one.connect()
        assert (refused.value.response.status_code, refused.value.response.headers["Retry-After"]) == (503, "1")
        with one.connect(additional_headers=bearer(TOKEN)) as socket:
            socket.send(bytes(600_000))
            assert "error" in result(socket)[0]


TRICKS = (
    *("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/....//"),
    *(
        "/../../etc/passwd",
        "/api/sources/..%2f..%2fetc%2fpasswd/picture",
        "/static/app.js%00.html",
        "/static/",
        "//etc",
    ),
    *("/api/sources/%2e/map", "/static/C:%5cwindows", "/static/app.py", "/static/__init__.py", "/docs", "/redoc"),
)


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_reaches_the_file_system(served, path):
    """Sent as it is: a client's library would tidy it up."""
    with sockets.create_connection((HOST, served.port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split()[1] in {b"404", b"422"}
    assert b"root:" not in answer
    assert b"import" not in answer


def test_secrets_are_in_no_log(model, small_clip, disc, capfd):
    """All loggers at their most talkative, and all that is printed, over every way in."""
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with serving(model, small_clip, guard=Guard(TOKEN)) as one:
            one.ask("/api/status", **bearer(TOKEN))
            one.ask(f"/api/status?token={TOKEN}")
            log_in(one, TOKEN)
            with one.connect(additional_headers=bearer(TOKEN)) as socket:
                socket.send(jpeg(disc[0]))
                result(socket)
            with one.connect() as socket:
                socket.send(json.dumps({"type": "token", "token": TOKEN, "more": 1}))
                with pytest.raises(ConnectionClosed) as closed:
                    socket.recv(10)
            assert TOKEN not in str(closed.value)
            assert TOKEN not in repr(one.service.guard)
            assert TOKEN.encode() not in one.ask("/metrics", **bearer(TOKEN)).body
    finally:
        root.removeHandler(handler)
        root.setLevel(logging.WARNING)
    out, err = capfd.readouterr()
    ours = [line for line in heard.getvalue().splitlines() if TOKEN in line and "> " not in line]
    assert [line for line in ours if "websockets.client" not in line] == []
    assert TOKEN not in out + err


def test_a_token_is_read_from_a_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    for text in ("", "short", "x" * 513, f"{TOKEN}\n{TOKEN}", "with space and so on", "schlüssel-schlüssel"):
        path.write_text(text)
        with pytest.raises(UsageError, match="a token is a line of 16 to 512"):
            read_token(path)
    with pytest.raises(UsageError, match="can't be read; make one with"):
        read_token(tmp_path / "missing")


def test_others_want_a_token():
    check_token_for("127.0.0.1", ["127.0.0.1", "::1"], None)
    check_token_for("0.0.0.0", ["0.0.0.0"], TOKEN)
    for address in ("0.0.0.0", "::", "192.168.1.7"):
        with pytest.raises(UsageError, match="others can reach it"):
            check_token_for(address, ["127.0.0.1", address], None)


@given(st.text(string.printable), st.text(string.printable))
def test_whatever_is_sent_as_host_origin_or_token_is_refused(one, other):
    guard = Guard(TOKEN)
    assert guard.is_token(one) == (one == TOKEN)
    assert not guard.is_cookie(f"{one}.{other}")
    assert not guard.is_known_origin(f"http://{one}", other) or one.lower() == other.lower() != ""
    guard.is_known_host(one)
