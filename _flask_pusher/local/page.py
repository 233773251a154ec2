"""The page at ``/``, for a browser on this machine and for nobody else.

It shows what private channels carry and can trigger events, so it must not be reachable from other
machines, nor from other web pages: not by a request they forge, and not by a name of theirs that
they let resolve to this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from importlib.resources import files
from itertools import chain, islice
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from . import wire
from .api import Api, line, parse_body
from .options import is_loopback
from .state import WARNINGS, Credentials, Happening, State

INTERVAL = 0.25  # seconds between updates
ROWS = 200  # shown of each kind
RECENT = 500  # events that are kept for pages opened later, and as many of everything else
LENGTH = 20_000  # characters shown of one

FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """Serves the page, tells it what happens, and triggers what it asks for."""

    def __init__(self, state: State, api: Api, credentials: Credentials, host: str) -> None:
        self._state = state
        self._api = api
        self._about = {"app_id": credentials.app_id, "key": credentials.key}
        self._sockets = credentials.path + "/app/"
        self._host = host
        self._events: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._others: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._last = 0
        self._closed = asyncio.Event()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/page/stream", self.stream),
            web.post("/page/trigger", self.trigger),
        ]

    def close(self) -> None:
        self._closed.set()

    def happened(self, happening: Happening) -> None:
        self._last += 1
        recent = self._events if happening.kind == "event" else self._others
        recent.append(
            {
                "number": self._last,
                "at": time.time(),
                "kind": happening.kind,
                "wrong": happening.kind in WARNINGS,
                "text": happening.text[:LENGTH],
                "socket_id": happening.socket_id,
                "channel": happening.channel,
                "event": happening.event,
                "data": happening.data and happening.data[:LENGTH],
            }
        )

    async def show(self, request: web.Request) -> web.Response:
        """Answer with one of the page's files."""
        if request.path.startswith(self._sockets) or wire.is_for_websocket(request.headers):
            raise _upgrade_required()
        if request.path not in FILES or request.method != "GET":
            raise web.HTTPNotFound(text="Nothing is here, the page is at /\n")
        self._check(request)
        name, content_type = FILES[request.path]
        text = (files("_flask_pusher.local") / name).read_text(
            encoding="utf-8"
        )  # from a zip file, too
        return web.Response(text=text, content_type=content_type, headers=HEADERS)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send what there is, and then at intervals what has changed, as server-sent events."""
        self._check(request)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        told, shown = 0, ""
        with contextlib.suppress(ConnectionError):  # the page was closed
            await response.write(_server_sent("about", wire.to_json(self._about)))
            while not self._closed.is_set():
                state = wire.to_json(self._snapshot())
                recent = chain(self._events, self._others)
                news = [happened for happened in recent if happened["number"] > told]
                news.sort(key=itemgetter("number"))
                update = _server_sent("state", state) if state != shown else b""
                if news or not told:
                    update += _server_sent("happened", wire.to_json(news))
                told, shown = self._last, state  # before what happens while it is written
                await response.write(update or b":\n\n")
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), INTERVAL)
        return response

    def _snapshot(self) -> dict[str, Any]:
        state = self._state
        return {
            "counts": {"connections": len(state.peers), "channels": len(state.channels)},
            "connections": [
                {
                    "socket_id": peer.socket_id,
                    "user_id": None if peer.user is None else peer.user.user_id,
                    "channels": list(islice(peer.channels, ROWS)),
                }
                for peer in islice(state.peers.values(), ROWS)
            ],
            "channels": [
                {
                    "name": channel.name,
                    "subscribers": len(channel.subscribers),
                    "members": dict(islice(channel.members.items(), ROWS)),
                }
                for channel in islice(state.channels.values(), ROWS)
            ],
        }

    async def trigger(self, request: web.Request) -> web.Response:
        self._check(request)
        # Only this page's own script can send both: another page's would have to ask first.
        if request.headers.get("Origin") is None or request.content_type != "application/json":
            raise web.HTTPForbidden(text="Events are triggered by this page only\n")
        event = self._api.parse_event(await parse_body(request))
        self._state.trigger(event)
        channels = [self._state.channels.get(name) for name in event.channels]
        count = sum(len(channel.subscribers) for channel in channels if channel is not None)
        return web.json_response({"subscribers": count})

    def _check(self, request: web.Request) -> None:
        if not is_loopback(request.remote or ""):
            raise web.HTTPForbidden(text="This page is for browsers on the server's machine\n")
        if not self._is_own_name(request.host):
            raise web.HTTPForbidden(text=line(f"This page is not at {request.host}"))
        own = f"{request.scheme}://{request.host}"
        if request.headers.get("Origin", own) != own:
            raise web.HTTPForbidden(text="This page is not for other pages\n")

    def _is_own_name(self, authority: str) -> bool:
        try:
            host = urlsplit(f"//{authority}").hostname or ""
        except ValueError:
            return False
        return is_loopback(host) or host == self._host.lower() != ""


def _upgrade_required() -> web.HTTPException:
    text = (
        "Here pages connect by WebSocket, of version 13, with a complete handshake, as pusher-js"
        " does. What happens is shown at /\n"
    )
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    return web.HTTPUpgradeRequired(text=text, headers=headers)


def _server_sent(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()
