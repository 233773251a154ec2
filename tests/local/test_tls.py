"""The server behind a certificate, as a page that is served by https needs it."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from flask import Flask, render_template_string

from _flask_pusher.local import connection as connection_room
from _flask_pusher.local import local_server
from flask_pusher import Pusher

from .peers import APP_ID, KEY, SECRET, Browser, eventually


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a certificate for 127.0.0.1, and of its private key."""
    openssl = shutil.which("openssl")
    if openssl is None and os.environ.get("FLASK_PUSHER_NO_SKIP") != "1":
        pytest.skip("There is no openssl")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, private_key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        [
            *(openssl or "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", private_key, "-out", certificate, "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, private_key


@pytest.fixture
def app(certificate: tuple[str, str]) -> Flask:
    app = Flask(__name__)
    app.config.update(
        PUSHER_APP_ID=APP_ID,
        PUSHER_KEY=KEY,
        PUSHER_SECRET=SECRET,
        PUSHER_BACKEND_OPTIONS={"verify": certificate[0]},
    )
    Pusher(app)
    return app


def test_the_application_browsers_and_the_page_reach_it_by_tls(
    app: Flask, certificate: tuple[str, str]
) -> None:
    client = app.extensions["pusher"]
    trusting = ssl.create_default_context(cafile=certificate[0])
    files = {"certificate": certificate[0], "private_key": certificate[1]}
    with local_server(app, **files) as server:  # type: ignore[arg-type]
        assert server.url == f"https://127.0.0.1:{server.port}"
        assert client.address == (server.host, server.port, True)
        with app.test_request_context():
            assert render_template_string("{{ pusher_options().forceTLS }}") == "True"
        path = f"/app/{KEY}?protocol=7"
        browser = Browser((server.host, server.port), path, tls=trusting).established()
        browser.subscribe("news")
        client.trigger("news", "e", {})
        browser.expect("e")
        with requests.Session() as session:
            session.trust_env = False
            session.verify = certificate[0]
            assert session.get(server.url, timeout=20).status_code == 200
            event = {"channel": "news", "name": "typed", "data": "{}"}
            headers = {"Origin": server.url}
            url = server.url + "/page/trigger"
            assert session.post(url, json=event, headers=headers, timeout=20).status_code == 200
        browser.expect("typed")
    assert browser.expect_error()["code"] == 4200
    assert browser.expect_closed().code == 4200
    browser.close()


def test_the_reason_of_a_refusal_arrives_by_tls_too(
    app: Flask, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_room, "CLOSE_SECONDS", 60)
    trusting = ssl.create_default_context(cafile=certificate[0])
    with local_server(app, certificate=certificate[0], private_key=certificate[1]) as server:
        for _ in range(5):
            path = f"/app/{KEY}?protocol=7"
            browser = Browser((server.host, server.port), path, tls=trusting).established()
            browser.send("pusher:signin", {})
            for number in range(500):
                browser.send("pusher:subscribe", {"channel": f"news-{number}"})
            assert browser.expect_error()["code"] == 4009
            assert browser.expect_closed().code == 4009
            browser.close()


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_a_peer_that_goes_away_right_behind_its_handshake_is_forgotten(
    app: Flask, certificate: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    request = (
        f"GET /app/{KEY}?protocol=7 HTTP/1.1\r\nHost: localhost\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with local_server(app, certificate=certificate[0], private_key=certificate[1]) as server:
        for _ in range(20):
            plain = socket.create_connection((server.host, server.port), timeout=20)
            with trusting.wrap_socket(plain, server_hostname=server.host) as peer:
                peer.sendall(request.encode())
                with suppress(OSError):
                    peer.unwrap()
        eventually(lambda: not server.connections)
    assert errors(caplog) == []


def test_subscribers_that_go_away_disturb_no_event_for_the_others(
    app: Flask, certificate: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    client = app.extensions["pusher"]
    with local_server(app, certificate=certificate[0], private_key=certificate[1]) as server:

        def browser() -> Browser:
            path = f"/app/{KEY}?protocol=7"
            browser = Browser((server.host, server.port), path, tls=trusting).established()
            browser.ask_to_subscribe("news")
            return browser

        def reset() -> None:
            for leaver in leavers:
                linger = struct.pack("ii", 1, 0)
                leaver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                leaver.close()

        leavers = [browser() for _ in range(100)]
        stayer = browser()
        server.wait_for("news", subscribers=101)
        resetting = threading.Thread(target=reset)
        resetting.start()
        sent = 0
        while len(server.channels["news"].subscribers) > 1:
            client.trigger("news", "e", str(sent))
            sent += 1
        resetting.join()
        received = [stayer.until("e")["data"] for _ in range(sent)]
        assert received == [str(number) for number in range(sent)]
        stayer.close()
    assert errors(caplog) == []


def test_a_certificate_may_hold_its_key(
    app: Flask, certificate: tuple[str, str], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(file).read_text() for file in certificate))
    with local_server(app, certificate=str(both)):
        assert app.extensions["pusher"].trigger("news", "e", {}) == {}


def test_a_certificate_without_its_key_is_an_error_that_names_it(
    app: Flask, certificate: tuple[str, str]
) -> None:
    with pytest.raises(OSError, match=f"Cannot use the certificate {certificate[0]}: "):
        local_server(app, certificate=certificate[0])
