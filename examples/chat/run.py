"""Starts the chat and, unless ``PUSHER_*`` settings name another, a local Channels server.

``python run.py [--port PORT]``. Ctrl-C or SIGTERM stops both.
"""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread

from flask.cli import ScriptInfo
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_pusher import local_server

HERE = Path(__file__).resolve().parent
PUSHER_JS = Path("node_modules", "pusher-js", "dist", "web", "pusher-with-encryption.min.js")
NPM_INSTALL = ("install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts")
NPM_SECONDS = 60
PORT = 8000
CREDENTIALS = {"PUSHER_APP_ID": "1", "PUSHER_KEY": "chat", "PUSHER_SECRET": secrets.token_hex()}
MASTER_KEY = "PUSHER_ENCRYPTION_MASTER_KEY_BASE64"


class QuietRequestHandler(WSGIRequestHandler):
    def log_request(self, *args: object) -> None:
        """Leave the terminal to what matters."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat on this machine, to open in two tabs.")
    parser.add_argument("--port", type=port, help=f"{PORT}, or a free one, unless you name one")
    # tox ends by SIGTERM without a word to what it runs.
    parser.add_argument(
        "--end-with-parent", action="store_true", help="stop when who started it has ended"
    )
    arguments = parser.parse_args()
    wanted, parent = arguments.port, os.getppid() if arguments.end_with_parent else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which ends npm, too

    is_local = not any(os.environ.get(key) for key in (*CREDENTIALS, "PUSHER_URL"))
    if is_local:
        os.environ.update(CREDENTIALS)
    os.environ.setdefault(MASTER_KEY, base64.b64encode(os.urandom(32)).decode())
    if pusher_js := named_pusher_js() or find_pusher_js() or fetch_pusher_js():
        os.environ["CHAT_PUSHER_JS"] = str(pusher_js)
    try:
        app = ScriptInfo(str(HERE / "app.py")).load_app()
    except ValueError as error:  # a setting that cannot be
        raise SystemExit(str(error)) from error

    stopped = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as running:
        listener = running.enter_context(listen(wanted))
        site = make_server(
            "127.0.0.1",
            listener.getsockname()[1],
            app,
            threaded=True,
            request_handler=QuietRequestHandler,
            fd=listener.fileno(),
        )
        address = f"http://127.0.0.1:{site.port}"
        if is_local:
            channels = running.enter_context(local_server(app, webhooks=address))
            say(f"A local Channels server shows what happens at {channels.url}/")
        else:
            say("Webhooks: let the Channels service post them to /pusher/events.")
        thread = Thread(target=site.serve_forever)
        thread.start()
        running.callback(thread.join)
        running.callback(site.shutdown)  # before the Channels server, which posts webhooks to it
        say(f"Open {address}/ in two tabs, under two names. Press Ctrl-C to stop.")
        while not stopped.wait(0.5):  # Windows runs signal handlers only between waits
            if parent not in (None, os.getppid()):
                break
    say("Stopped.")


def named_pusher_js() -> Path | None:
    name = os.environ.get("CHAT_PUSHER_JS")
    if name and not Path(name).is_file():
        raise SystemExit(f"CHAT_PUSHER_JS: there is no file {name}.")
    return Path(name).resolve() if name else None


def find_pusher_js() -> Path | None:
    """npm's copy, where there is a ``node_modules`` with it here or in a folder above."""
    return next(
        (path for top in (HERE, *HERE.parents) if (path := top / PUSHER_JS).exists()), None
    )


def fetch_pusher_js() -> Path | None:
    """Install it beside this file, where npm is at hand. Without it the page asks a CDN."""
    npm = shutil.which("npm")
    if npm:
        say("Fetching pusher-js with npm, once.")
        try:
            subprocess.run([npm, *NPM_INSTALL], cwd=HERE, check=True, timeout=NPM_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            say(f"npm failed, so the page takes pusher-js from a CDN. {error}")
    return find_pusher_js()


def port(text: str) -> int:
    if not 0 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def listen(wanted: int | None) -> socket.socket:
    """Listen on the port that was asked for, and on no other; else on the usual or a free one."""
    try:
        return socket.create_server(("127.0.0.1", PORT if wanted is None else wanted))
    except OSError as error:
        if wanted is not None:
            reason = os.strerror(error.errno or 0)
            raise SystemExit(f"Port {wanted}: {reason}. Choose another --port.") from error
    listener = socket.create_server(("127.0.0.1", 0))
    say(f"Port {PORT} is in use, so the chat takes port {listener.getsockname()[1]}.")
    return listener


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
