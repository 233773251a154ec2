"""The blueprint's routes, and what one application was given."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from flask import Blueprint, Flask, Response, current_app, has_request_context, request
from flask.blueprints import BlueprintSetupState

from _flask_pusher import page, rules
from _flask_pusher.authorisation import FORBIDDEN, Authorisation
from _flask_pusher.client import Client
from _flask_pusher.handlers import Handlers, object_of
from _flask_pusher.models import Models
from _flask_pusher.outbox import Outboxes
from _flask_pusher.settings import ROUTE, Settings
from _flask_pusher.templates import Templates
from _flask_pusher.webhooks import WebhookViews

_HOST = "_pusher_host"
"""The variable of the routes that is the host, or the subdomain, of who asks."""


class Binding(NamedTuple):
    """What an application was given: ``app.extensions["flask_pusher"]``."""

    settings: Settings
    client: Client
    outboxes: Outboxes
    handlers: Handlers
    authorisation: Authorisation
    webhooks: WebhookViews
    templates: Templates
    models: Models


def of_current_app(key: str) -> Any:
    """What an extension of the current application holds.

    :raises RuntimeError: where the application was not given this one.
    """
    try:
        return current_app.extensions[key]
    except KeyError:
        raise RuntimeError(f"{current_app.name!r} has no Pusher: call init_app(app).") from None


def expect_application(app: Any) -> Flask:
    """The application itself, where it may be a proxy of it, such as ``current_app``.

    :raises TypeError: for what is no application.
    """
    app = object_of(app)
    if not isinstance(app, Flask):
        raise TypeError(
            "Pusher() takes the application, Pusher(app), and settings are keys of app.config, such"
            f" as PUSHER_KEY; this is of type {type(app).__name__}, which is no flask.Flask."
        )
    return app


def make_blueprint(url_prefix: str, import_name: str) -> Blueprint:
    if not re.fullmatch(f"(/|/{ROUTE})?", url_prefix or ""):
        raise ValueError(
            "url_prefix should start with a slash, and be a path without variables, ? and #; it is"
            f" {url_prefix!r}."
        )
    blueprint = Blueprint("pusher", import_name, url_prefix=url_prefix)
    blueprint.record(_add_routes)
    blueprint.url_defaults(page.add_version)
    return blueprint


def refuse_collisions(app: Flask) -> None:
    """Say what is in the way, before anything of the application is changed.

    :raises RuntimeError: if something is.
    """
    if "pusher" in app.extensions:
        kind = type(app.extensions["pusher"]).__name__
        raise RuntimeError(
            f"app.extensions['pusher'] of {app.name!r} holds an object of type {kind} already. Make"
            " one Pusher, call init_app(app) once; keep a client of your own under another name."
        )


def _add_routes(state: BlueprintSetupState) -> None:
    binding: Binding | None = state.options.get("binding")
    if binding is None:
        raise RuntimeError("Call pusher.init_app(app) in place of app.register_blueprint(...).")
    settings, authorisation, webhooks = binding.settings, binding.authorisation, binding.webhooks
    app = authorisation.app
    hosts = _hosts(app)

    def route(path: str, endpoint: str, view: Callable[[], Any], method: str = "POST") -> None:
        noted = _noted(view, endpoint)
        for host in hosts:
            state.add_url_rule(path, endpoint, noted, methods=[method], **host)

    route("/page.js", "page", page.page, "GET")
    route(settings.auth, "auth", authorisation.auth)
    route(settings.user_auth, "user_auth", authorisation.user_auth)
    route("/events", "events", webhooks.answer)
    for group in rules.WEBHOOK_GROUPS:
        route(f"/events/{group}", f"{group}_event", partial(webhooks.answer, group))
    # All that Flask answers comes by here, also where an after_request function has raised.
    finalize = app.finalize_request
    app.finalize_request = lambda *args, **options: _expect_our_answer(finalize(*args, **options))  # type: ignore[method-assign]


# -- Whose answer it is ---------------------------------------------------------------------------

# A browser takes whatever comes with a status of success for its authorisation, and a service for
# a delivery. An application may answer in our place, before the view or after it: a login page, a
# redirect to https, an error handler that names no status. One rule for all of them: only the very
# response that the view gave is a success, with the status that it gave.

_ANSWER = "flask_pusher.answer"
_IS_FOR_PAGE = {"pusher.auth": True, "pusher.user_auth": True, "pusher.events": False}
_IS_FOR_PAGE.update({f"pusher.{group}_event": False for group in rules.WEBHOOK_GROUPS})


def _noted(view: Callable[[], Any], endpoint: str) -> Callable[..., Response]:
    """The view, which leaves word that it was asked, and of its answer."""

    def noted(**_host: str) -> Response:
        request.environ[_ANSWER] = None
        answer = request.environ[_ANSWER] = current_app.make_response(view())
        return answer

    noted.__name__ = noted.__qualname__ = endpoint  # by which others know it: to exempt it, say
    return noted


def _expect_our_answer(response: Response) -> Response:
    """Refuse where this is another's success, and say so."""
    is_for_page = _IS_FOR_PAGE.get(_endpoint())
    if is_for_page is None or request.method == "OPTIONS":
        return response
    environ, status = request.environ, response.status_code
    was_asked, answer = _ANSWER in environ, environ.get(_ANSWER)
    # The reason of a refusal is logged where it was found.
    if (response is answer and status == 200) or (was_asked and not answer and status >= 400):
        return response
    to = response.headers.get("Location", "").partition("?")[0]
    when = "in an error handler or after the view" if was_asked else "before the view"
    happened = f"{when} the application answers it with {response.status} {to:.200}".rstrip()
    is_csrf = status in (400, 403) and "csrf" in current_app.extensions
    current_app.logger.log(
        logging.WARNING if status < 400 or is_csrf or not is_for_page else logging.DEBUG,
        "Refused at %s: %s. Let it spare the routes of pusher.blueprint; if it is CSRF protection:"
        " csrf.exempt(pusher.blueprint).",
        request.path,
        happened,
    )
    if is_for_page and status < 400:
        _replace(response, 403, FORBIDDEN)
    elif status < 300:
        _replace(response, 503, f"This webhook was not delivered: {happened}.")
    return response


def _endpoint() -> str:
    """Of the route that is asked. Flask has matched none where a session cannot be opened, or the
    host is not trusted."""
    if request.url_rule is None:
        adapter = current_app.url_map.bind("localhost")
        with suppress(Exception):  # there is none at this path
            return str(adapter.match(request.path, request.method)[0])
    return request.endpoint or ""


def _replace(response: Response, status: int, text: str) -> None:
    """Other headers stay, such as those of CORS, without which a page cannot see the status."""
    if hasattr(response.response, "close"):  # a file that would have been sent
        response.response.close()
    for header in ("Location", "Content-Encoding"):
        response.headers.pop(header, None)
    response.direct_passthrough = False
    response.status_code, response.mimetype = status, "text/plain"
    response.set_data(text)


# The routes are at every host that the application answers at, so that a page asks its own.


def _hosts(app: Flask) -> list[dict[str, Any]]:
    """The options of the rules, one set for each kind of host."""
    if app.url_map.host_matching:
        hosts = [{"host": f"<{_HOST}>"}]
    elif app.subdomain_matching:
        hosts = [{}, {"subdomain": f"<{_HOST}>"}]
    else:
        return [{}]
    app.url_defaults(_at_the_same_host)
    return hosts


def _at_the_same_host(endpoint: str, values: dict[str, Any]) -> None:
    if endpoint.startswith("pusher.") and has_request_context():
        adapter = current_app.create_url_adapter(request)
        host = request.host if current_app.url_map.host_matching else adapter and adapter.subdomain
        if host:
            values.setdefault(_HOST, host)
