"""What templates are given: ``PUSHER_KEY``, ``pusher_options()`` and ``pusher_scripts()``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import Flask, url_for
from jinja2 import Environment
from markupsafe import Markup

from _flask_pusher.client import Client
from _flask_pusher.settings import Settings, hosted_cluster

_CDN = "https://cdn.jsdelivr.net/npm/"
# Each file with its integrity, which tests compare with what npm has.
_PUSHER_JS = (
    "pusher-js@8.6.0/dist/web/pusher.min.js",
    "sha384-yz6oLe92Sren05O3WPhu8DK05E9PEkh7kTQJ819acmwKwcCMwJXGu9Kta5wYhfaJ",
)
_PUSHER_JS_WITH_ENCRYPTION = (
    "pusher-js@8.6.0/dist/web/pusher-with-encryption.min.js",
    "sha384-pYFayNmFTq10y7XqhtGrFp6x1ZevpYi0O8M/yGdtx7tm2ubLgj0zTXzp5yMXIIgo",
)
_IDIOMORPH = (
    "idiomorph@0.8.0/dist/idiomorph.min.js",
    "sha384-e8O/d5cD6uoo78UI/d99hf1dEsbvkgBZNIetwKEi79V9qexl0Bdc2wxEqLEaj58U",
)


class Templates(NamedTuple):
    """The variables of one application's templates."""

    client: Client
    settings: Settings

    def give(self, app: Flask) -> None:
        """Put them into Jinja's globals, which macros that a template imports see, too."""
        variables = {
            "PUSHER_KEY": self.client.key,
            "pusher_options": self.pusher_options,
            "pusher_scripts": self.pusher_scripts,
        }
        if "jinja_env" in vars(app):
            app.jinja_env.globals.update(variables)
        # Else it is made when a template is first asked for, of what the application has set until
        # then: making it now would settle that.
        make_environment = app.create_jinja_environment

        def make_environment_with_variables() -> Environment:
            environment = make_environment()
            environment.globals.update(variables)
            return environment

        app.create_jinja_environment = make_environment_with_variables  # type: ignore[assignment, method-assign]

    def pusher_options(self) -> dict[str, Any]:
        """The second argument of ``new Pusher(...)`` in a page of this application."""
        host, port, ssl = self.client.address
        cluster = hosted_cluster(host)
        options: dict[str, Any] = {
            "cluster": self.settings.cluster or cluster or "mt1",
            "channelAuthorization": {"endpoint": url_for("pusher.auth"), "headers": {}},
            "userAuthentication": {"endpoint": url_for("pusher.user_auth"), "headers": {}},
            # Milliseconds: of silence, after which pusher-js asks whether the connection lives,
            # 120,000 by itself; and in which the answer has to come.
            "activityTimeout": 30_000,
            "pongTimeout": 6_000,
        }
        if cluster is None:
            options.update(wsHost=host, wsPort=port, wssPort=port, forceTLS=ssl)
            options["enabledTransports"] = ["ws", "wss"]
            if self.client.path:
                options["wsPath"] = self.client.path
        merged: dict[str, Any] = _merged(options, self.settings.client_options)
        return merged

    def pusher_scripts(self, nonce: str | None = None, morph: bool = True) -> Markup:
        """The tags, for a page's head, of pusher-js, Idiomorph and the script that keeps elements
        up to date.

        :param nonce: of the page's Content-Security-Policy.
        :param morph: whether to load Idiomorph. Without it, what a user has typed into an element
            is lost when that is filled anew.
        """
        pusher_js = _PUSHER_JS_WITH_ENCRYPTION if self.client.can_encrypt else _PUSHER_JS
        ours = {"data-key": self.client.key, "data-options": json.dumps(self.pusher_options())}
        scripts = (
            _script(self.settings.js_url, pusher_js),
            _script(self.settings.idiomorph_url, _IDIOMORPH) if morph else {},
            {"src": url_for("pusher.page"), **ours},
        )
        common = {} if nonce is None else {"nonce": nonce}
        return Markup("\n").join(_tag({**script, **common}) for script in scripts if script)


def _script(url: str | None, of_the_cdn: tuple[str, str]) -> dict[str, str]:
    """The attributes of a script; none where the page loads its own copy."""
    if url is not None:
        return {"src": url} if url else {}
    path, integrity = of_the_cdn
    return {"src": _CDN + path, "integrity": integrity, "crossorigin": "anonymous"}


def _tag(attributes: Mapping[str, str]) -> Markup:
    written = Markup(" ").join(Markup('{}="{}"').format(*pair) for pair in attributes.items())
    return Markup('<script {} data-turbo-track="reload" defer></script>').format(written)


def _merged(below: Any, over: Any) -> Any:
    """A mapping laid over another, and the mappings in it over those in the other."""
    if not isinstance(below, dict) or not isinstance(over, Mapping):
        return over
    return {**below, **{key: _merged(below.get(key), value) for key, value in over.items()}}
