"""What stands in for a service: the answers of one that holds nothing, or what a test says; and the
backend that only logs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask
from pusher.http import POST, Request

from _flask_pusher import rules


class LogBackend:
    """``PUSHER_BACKEND = "log"``: sends nothing, and logs what it would send."""

    sends_nothing = True

    def __init__(self, client: Any, app: Flask | None = None) -> None:
        self.client = client
        self.app = app

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "app": None}  # a copy has no application

    @property
    def logger(self) -> logging.Logger:
        return self.app.logger if self.app else logging.getLogger("flask_pusher")

    def send_request(self, request: Request) -> dict[str, Any]:
        events = events_of(request)
        for event in events:
            what = (event["name"], " ".join(event["channels"]), event["data"])
            self.logger.info("Not published, PUSHER_BACKEND is 'log': %r on %s: %s", *what)
        if not events:
            asked = f"{request.method} {request.path}"
            self.logger.info("Not asked, PUSHER_BACKEND is 'log': %s", asked)
        return answer_of(request, {})


def resource_of(request: Request) -> list[str]:
    """The parts of a request's path behind ``/apps/APP_ID``."""
    return str(request.path)[len(request.client.path) :].split("/")[3:]


def events_of(request: Request) -> list[dict[str, Any]]:
    """The events that a request publishes, each with its ``channels``."""
    resource = resource_of(request)
    if resource == ["batch_events"]:
        return [{**event, "channels": [event["channel"]]} for event in request.params["batch"]]
    return [dict(request.params)] if resource == ["events"] else []


Channels = Mapping[str, "int | list[str] | tuple[str, ...]"]
"""What the channels hold: how many subscribers, or, for presence channels, the members' ids."""


def answer_of(request: Request, channels: Channels) -> dict[str, Any]:
    """What a service would answer on which these channels are all that is occupied."""
    resource, params = resource_of(request), request.params
    info = params.get("info", "")
    if request.method == POST:
        batch = params.get("batch", ())
        if any("info" in event for event in batch):
            asked = [(event["channel"], event.get("info", "")) for event in batch]
            return {"batch": [_attributes(name, channels, info) for name, info in asked]}
        if not info:
            return {}
        return {"channels": {one: _attributes(one, channels, info) for one in params["channels"]}}
    if resource == ["channels"]:
        prefix = params.get("filter_by_prefix", "")
        names = [name for name in channels if name.startswith(prefix) and _count(channels, name)]
        return {"channels": {name: _attributes(name, channels, info) for name in names}}
    name = resource[1]
    if resource[2:] == ["users"]:
        members = channels.get(name, ())
        return {"users": [] if isinstance(members, int) else [{"id": str(one)} for one in members]}
    return {"occupied": _count(channels, name) > 0, **_attributes(name, channels, info)}


def _attributes(name: str, channels: Channels, info: str) -> dict[str, int]:
    of_presence = ["user_count"] if rules.is_presence(name) else []
    known = {"subscription_count", *of_presence}.intersection(info.split(","))
    return dict.fromkeys(known, _count(channels, name))


def _count(channels: Channels, name: str) -> int:
    found = channels.get(name, 0)
    return found if isinstance(found, int) else len(found)
