"""Authorising channels, by this extension and by views written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from itertools import count
from typing import Any
from urllib.parse import urlencode

import pusher
from flask import Flask, abort, request
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder, run_wsgi_app

from benchmarks.measuring import Ratio, Report, compare
from flask_pusher import Pusher

APP_ID, KEY, SECRET = "1", "a-key", "a-secret"
SOCKET_ID = "123.456"
KINDS = range(50)
PATTERNS = [re.compile(f"private-kind{kind}-([0-9]+)") for kind in KINDS]
PATH, PATH_BY_HAND = "/pusher/auth", "/by-hand/auth"

View = Callable[[], Any]
MEMBER = {"user_id": "1", "user_info": {"name": "Ana"}}
SECONDS = 6


client = pusher.Pusher(APP_ID, KEY, SECRET)


def may_subscribe(channel_name: str, socket_id: str) -> bool:
    return True


def member(channel_name: str, socket_id: str) -> dict[str, Any]:
    return MEMBER


def may_follow(channel_name: str, socket_id: str, number: int) -> bool:
    return number > 0


def by_hand(view: View) -> Flask:
    """An application with a view that calls the official client. It has the extension too, so that
    what is compared is authorisation, and not what each request pays for being able to defer."""
    app, _ = by_extension()
    app.post(PATH_BY_HAND)(view)
    return app


def without_extension(view: View) -> Flask:
    app = Flask("without_extension")
    app.post(PATH_BY_HAND)(view)
    return app


def one_channel() -> Any:
    return authorised(request.form["channel_name"], request.form["socket_id"])


def several_channels() -> Any:
    socket_id = request.form["socket_id"]
    answers: dict[str, Any] = {}
    for number in count():
        channel = request.form.get(f"channel_name[{number}]")
        if channel is None:
            break
        try:
            answers[channel] = {"status": 200, "data": authorised(channel, socket_id)}
        except HTTPException as refusal:
            answers[channel] = {"status": refusal.code}
    return answers


def authorised(channel: str, socket_id: str) -> dict[str, str]:
    """Asks the application, and the client, which raises ``ValueError`` for what it cannot sign."""
    if not may_subscribe(channel, socket_id):
        abort(403)
    data = member(channel, socket_id) if channel.startswith("presence-") else None
    return signed(channel, socket_id, data)


def signed(channel: str, socket_id: str, data: dict[str, Any] | None = None) -> dict[str, str]:
    try:
        answer: dict[str, str] = client.authenticate(channel, socket_id, data)
    except ValueError:
        abort(400)
    return answer


def by_pattern() -> Any:
    channel = request.form["channel_name"]
    for pattern in PATTERNS:
        if match := pattern.fullmatch(channel):
            break
    else:
        abort(403)
    socket_id = request.form["socket_id"]
    if not may_follow(channel, socket_id, int(match[1])):
        abort(403)
    return signed(channel, socket_id)


def by_extension() -> tuple[Flask, Pusher]:
    app = Flask("by_extension")
    app.config.update(PUSHER_APP_ID=APP_ID, PUSHER_KEY=KEY, PUSHER_SECRET=SECRET)
    return app, Pusher(app)


def with_one_handler() -> Flask:
    app, extension = by_extension()
    extension.auth(may_subscribe)
    extension.channel_data(member)
    return app


def with_patterns() -> Flask:
    app, extension = by_extension()
    for kind in KINDS:
        extension.auth(f"private-kind{kind}-<int:number>")(may_follow)
    return app


def one(channel: str) -> dict[str, str]:
    return {"socket_id": SOCKET_ID, "channel_name": channel}


def several(count: int) -> dict[str, str]:
    names = {f"channel_name[{n}]": f"private-order-{n}" for n in range(count)}
    return {"socket_id": SOCKET_ID, **names}


class Browser:
    """Posts forms to an application, as a WSGI server would that received them."""

    def __init__(self, app: Flask, forms: Iterable[Mapping[str, str]], path: str = PATH) -> None:
        self.app = app
        self.requests = [(body, _environ(body, path)) for body in map(_encoded, forms)]

    def post_all(self) -> None:
        for body, environ in self.requests:
            output = self.app({**environ, "wsgi.input": BytesIO(body)}, _start_response)
            b"".join(output)
            output.close()  # type: ignore[attr-defined]  # Werkzeug's has it

    def answers(self) -> list[tuple[str, str, Any]]:
        """The status, the type and the content of each answer."""
        found = []
        for body, environ in self.requests:
            answer = run_wsgi_app(self.app, {**environ, "wsgi.input": BytesIO(body)})
            found.append((answer[1], answer[2]["Content-Type"], json.loads(b"".join(answer[0]))))
        return found


def _encoded(form: Mapping[str, str]) -> bytes:
    return urlencode(form).encode()


def _environ(body: bytes, path: str) -> dict[str, Any]:
    content_type = "application/x-www-form-urlencoded"
    builder = EnvironBuilder(path, method="POST", data=body, content_type=content_type)
    return builder.get_environ()


def _start_response(
    status: str, headers: list[tuple[str, str]], exc_info: Any = None
) -> Callable[[bytes], None]:
    return bytearray().extend


def compared(hand: Browser, ours: Browser) -> Ratio:
    """The ratio of the times that the answers take, which have to be the same."""
    if hand.answers() != ours.answers():
        raise AssertionError(f"Not the same:\n{hand.answers()}\n{ours.answers()}")
    return compare(hand.post_all, ours.post_all, seconds=SECONDS)


def main() -> None:
    report = Report("Authorisation: this extension / a view written by hand")
    plain, patterns = with_one_handler(), with_patterns()

    def ratio(view: View, ours: Flask, *forms: dict[str, str]) -> Ratio:
        hand = Browser(by_hand(view), forms, PATH_BY_HAND)
        return compared(hand, Browser(ours, forms))

    of_each_kind = [one(f"private-kind{kind}-7") for kind in KINDS]
    report.ratio("a private channel", ratio(one_channel, plain, one("private-x")), 1.1)
    report.ratio("a presence channel", ratio(one_channel, plain, one("presence-x")), 1.1)
    report.ratio("one of 50 patterns", ratio(by_pattern, patterns, *of_each_kind), 1.1)
    report.ratio("a batch of 50 channels", ratio(several_channels, plain, several(50)), 1.0)
    batches = [Browser(plain, [several(n)] * (500 // n)) for n in (50, 500)]
    plain_view = [
        Browser(make(one_channel), [one("private-x")], PATH_BY_HAND)
        for make in (without_extension, by_hand)
    ]
    report.ratio("by hand with the extension / without it", compared(*plain_view))
    growth = compare(batches[0].post_all, batches[1].post_all, seconds=SECONDS)
    report.ratio("a channel of a batch of 500 / of a batch of 50", growth, 1.1)
    report.exit()


if __name__ == "__main__":
    main()
