"""What templates are given: ``PUSHER_KEY`` and ``pusher_options()``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, url_for

from _flask_pusher.client import Client
from _flask_pusher.settings import Settings, hosted_cluster


class Templates:
    """The variables of one application's templates."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self.client = client
        self.settings = settings

    def give(self, app: Flask) -> None:
        variables = {"PUSHER_KEY": self.client.key, "pusher_options": self.pusher_options}
        app.context_processor(lambda: variables)
        # Macros that a template imports see no context, but the globals.
        app.jinja_env.globals.update(variables)

    def pusher_options(self) -> dict[str, Any]:
        """The second argument of ``new Pusher(...)`` in a page of this application."""
        host, port, ssl = self.client.address
        cluster = hosted_cluster(host)
        options: dict[str, Any] = {
            "cluster": self.settings.cluster or cluster or "mt1",
            "channelAuthorization": {"endpoint": url_for("pusher.auth"), "headers": {}},
            "userAuthentication": {"endpoint": url_for("pusher.user_auth"), "headers": {}},
        }
        if cluster is None:
            options.update(
                wsHost=host,
                wsPort=port,
                wssPort=port,
                forceTLS=ssl,
                enabledTransports=["ws", "wss"],
            )
            if self.client.path:
                options["wsPath"] = self.client.path
        return _merged(options, self.settings.client_options)


def _merged(options: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping laid over another, and the mappings in it over those in the other."""
    merged = dict(options)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            value = _merged(below, value)
        merged[key] = value
    return merged
