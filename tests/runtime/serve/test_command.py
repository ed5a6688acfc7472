"""The command: what it prints, how it ends, and what is wrong in one sentence."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from limits import script
from rtsp import RtspServer
from serving import HOST, TOKEN, jpeg, result, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from salema.export.weights.seeded import moving_disc
from salema.runtime.serve import cli as serve_cli
from salema.runtime.serve.cli import main
from salema.runtime.serve.running import Access, _show_address
from salema.runtime.serve.server import listen


@contextmanager
def started(*arguments, cwd=None):
    """Runs the command on a free port, in a process of its own; gives the process and the URL that it prints."""
    line = [script("salema-serve"), "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process, timeout=20):
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in out + err
    return process.returncode, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_time_with_clients_attached(model, small_clip, disc, number):
    """A client in the middle of a stream, one that never reads, one that watches MJPEG, one that says nothing."""
    with started("--source", small_clip, "--model", model) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        with connect(f"ws://{HOST}:{port}/api/stream", proxy=None) as client:
            client.send(jpeg(disc[0]))
            client.recv(20)
            watcher = http.client.HTTPConnection(HOST, port, timeout=20)
            watcher.request("GET", "/api/sources/0/mjpeg")
            answer = watcher.getresponse()
            assert answer.readline() == b"--salema\r\n"
            silent = socket.create_connection((HOST, port))
            start = time.monotonic()
            process.send_signal(number)
            code, err = ended(process)
            assert (code, time.monotonic() - start < 8) == (0, True)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    client.recv(10)
            assert closed.value.rcvd.code in {1001, 1012}
            answer.read()  # it ends
            watcher.close()
            assert silent.recv(1) == b""
            silent.close()
    assert "seeded:16 weights are untrained" in err


def test_a_stop_before_it_serves(model):
    """A source that never answers is waited for, and a signal ends that."""
    with socket.create_server((HOST, 0)) as mute:
        url = f"rtsp://user:{TOKEN}@{HOST}:{mute.getsockname()[1]}/x"
        line = [script("salema-serve"), "--port", "0", "--model", str(model), "--source", url]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        mute.settimeout(60)
        with mute.accept()[0]:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert TOKEN not in err


def test_a_camera_of_the_network_is_shown_without_its_password(model):
    camera = RtspServer(moving_disc(8, 64, 96))
    try:
        with started("--source", camera.url, "--model", model) as (process, url):
            port = int(url.rstrip("/").rpartition(":")[2])
            connection = http.client.HTTPConnection(HOST, port, timeout=20)
            connection.request("GET", "/api/status")
            told = connection.getresponse().read().decode()
            connection.close()
            process.send_signal(signal.SIGTERM)
            code, err = ended(process)
    finally:
        camera.close()
    assert code == 0
    assert "secret" not in told + err


def test_a_port_that_is_taken_or_forbidden(cli, model):
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        ran = cli(main, "--port", port, "--model", model)
    assert (ran.code, ran.err) == (
        1,
        f"salema-serve: --port {port}: another program listens there; end it, or give another port\n",
    )


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to run it as another user")
def test_a_port_that_this_user_may_not_take(tmp_path):
    code = f"""
import os, sys
from salema.runtime.serve.server import listen
from salema.runtime.errors import SalemaError
"".encode("idna")  # its codec is read from a folder that the other user may not read
os.setuid(65534)
try:
    listen("{HOST}", 81, 1)
except SalemaError as error:
    print(error.exit_code, error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ran.stderr == ""
    least = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert ran.stdout == (
        "" if least <= 81 else "1 --port 81: this user may not listen there; give a port above 1023\n"
    )


WRONG = {
    ("--port", "70000"): "--port 70000: give a number from 0 to 65535; 0 takes any that is free",
    ("--port", "x"): "invalid value for '--port': 'x' is not a valid int; see salema-serve --help",
    ("--host", "no.such.host.invalid"): "--host no.such.host.invalid: no address of this machine (",
    ("--host", "192.0.2.1", "--token-file", "token"): "--host 192.0.2.1: no address of this machine (",
    ("--host", "0.0.0.0"): "--host 0.0.0.0: others can reach it, so it wants a token; make one with: python3 -c",
    ("--token-file", "missing"): "--token-file missing: can't be read; make one with: python3 -c",
    ("--allow-host", "http://camera"): "--allow-host http://camera: give a name, such as camera.example",
    ("--allow-origin", "example.org"): "--allow-origin example.org: give scheme and host, such as https://",
    ("--certificate", "token"): "--certificate and --key go together; give both, or neither",
    ("--certificate", "token", "--key", "token"): "--certificate token --key token: can't be used (",
    ("--max-fps", "0"): "--max-fps 0: give a number above 0, 1000000 at most",
    ("--max-wait-ms", "-1"): "--max-wait-ms -1: give milliseconds, 0 to 10000",
    ("--fps", "0"): "--fps 0: ",
    ("--source", ""): "a source has no name; give a video file, say",
    ("--backend", "abacus"): "--backend abacus: not one of auto, ",
}


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_options(cli, model, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    ran = cli(main, "--port", "0", "--model", model, *options)
    assert ran.code == 2
    assert ran.err.startswith(f"salema-serve: {WRONG[options]}")
    assert ran.err.count("\n") == 1
    assert TOKEN not in ran.err


def test_sources_that_all_fail(cli, model, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for names in (["missing.mp4"], ["bad.mp4"], ["bad.mp4", "missing.mp4"]):
        given = [word for name in names for word in ("--source", tmp_path / name)]
        ran = cli(main, "--port", "0", "--model", model, *given)
        assert ran.code == 1
        assert ran.out == ""
        assert all(name in ran.err.splitlines()[-1] for name in names)


def test_a_model_that_is_missing(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = cli(main)
    told = "salema-serve: salema-model: no such folder; make it with: salema-export --weights nano\n"
    assert (ran.code, ran.err) == (1, told)
    ran = cli(main, "--model", "other", "--port", "0")
    assert (ran.code, ran.err.startswith("salema-serve: other: no such model; make one with:")) == (1, True)


def test_a_library_that_is_missing(cli, monkeypatch):
    monkeypatch.setattr(serve_cli, "_LIBRARIES", ("fastapi", "no_such_library"))
    ran = cli(main)
    assert (ran.code, ran.err) == (
        1,
        "salema-serve: no_such_library not installed; install: pip install 'salema[serve]'\n",
    )


def test_over_https(model, disc, tmp_path):
    """With a certificate made here."""
    import ssl

    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run([*make, *names, *files], check=True, capture_output=True)
    (tmp_path / "token").write_text(TOKEN)
    files = ("--certificate", tmp_path / "cert.pem", "--key", tmp_path / "key.pem", "--token-file", tmp_path / "token")
    with started("--model", model, *files) as (process, url):
        assert url.startswith(f"https://{HOST}:")
        port = int(url.rstrip("/").rpartition(":")[2])
        trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=trusting)
        connection.request("POST", "/login", f"token={TOKEN}")
        answer = connection.getresponse()
        answer.read()
        assert "Secure" in answer.headers["Set-Cookie"]
        cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        wss = f"wss://localhost:{port}/api/stream"
        with connect(
            wss, proxy=None, ssl=trusting, additional_headers=cookie, origin=f"https://localhost:{port}"
        ) as one:
            one.send(jpeg(disc[0]))
            assert len(one.recv(20)) > 100
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_a_restart_with_clients_attached(model, small_clip, disc):
    """A second server takes the port at once, while the first one's connections are still known to the system."""
    with serving(model, small_clip) as one, one.connect() as first, one.connect("/api/sources/0/live") as watching:
        first.send(jpeg(disc[0]))
        result(first)
        watching.send('{"type": "next"}')
        result(watching)
        one.stop.set()
        for client in (first, watching):
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    client.recv(10)
            assert closed.value.rcvd.code == 1012  # "service restart": come again
        port = one.port
    with serving(model, small_clip, port=port) as two, two.connect() as again:
        again.send(jpeg(disc[0]))
        header, _ = result(again)
        assert (header["frame"], header["starts_anew"]) == (1, True)


def test_the_address_that_is_printed_can_be_opened(capsys):
    for host, shown in (("127.0.0.1", HOST), ("localhost", "localhost"), ("0.0.0.0", "localhost")):
        (opened, *_) = sockets = listen(host, 0, 1)
        port = opened.getsockname()[1]
        _show_address(host, opened, None)
        for one in sockets:
            one.close()
        out, err = capsys.readouterr()
        assert out == f"http://{shown}:{port}/\n"
        assert (f"http://{socket.gethostname()}:{port}/" in err) == (host == "0.0.0.0")


def test_names_of_the_server():
    guard = Access(HOST, 0, None, ("Camera.example:8443",), ()).guard()
    name = socket.gethostname()
    for host in ("camera.example", "camera.example:8008", "localhost", name, f"{name.partition('.')[0]}.local:8008"):
        assert guard.is_known_host(host)
    assert not guard.is_known_host("other.local")
