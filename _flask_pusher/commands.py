"""``flask pusher ...``."""

from __future__ import annotations

import html
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

import click
import requests
from flask import Flask, current_app, url_for
from flask.cli import AppGroup
from pusher.errors import PusherError

from _flask_pusher import expect, rules
from _flask_pusher.client import Client
from _flask_pusher.handlers import ChannelHandlers, Handlers
from _flask_pusher.local.options import FEATURES
from _flask_pusher.local.printable import printable
from _flask_pusher.routes import Binding
from _flask_pusher.settings import BACKENDS, NEVER, TABLE, strangers
from _flask_pusher.stand_in import LogBackend
from _flask_pusher.transport import complete, in_words, proxies_for, status_of
from _flask_pusher.webhooks import webhook_headers

_FILE, _SECONDS = click.Path(exists=True, dir_okay=False), click.FloatRange(min=0)
_NO_DATA = "the socket id, so each tab is a member of its own: declare @pusher.channel_data"
_NO_USER = "nobody signs in: declare @pusher.user_auth"
_DELAY = rules.WEBHOOK_DELAY_SECONDS
_A_DELAY = "Seconds until a webhook tells that somebody has left, who may be back by then."
_LEFT_OUT = f"Features to leave out: {', '.join(FEATURES)}."

COMMANDS = AppGroup()
"""Those of ``flask pusher``."""


# -- check ----------------------------------------------------------------------------------------


@COMMANDS.command()
@click.option("--webhooks", "webhook_url", metavar="URL", help="Post a signed webhook there, too.")
def check(webhook_url: str | None) -> None:
    """Show what is set and declared, and try the settings on the server."""
    binding: Binding = current_app.extensions["flask_pusher"]
    for key, value in _in_force(binding):
        click.echo(f"{key:38}{value}")
    trusted = current_app.config.get("TRUSTED_HOSTS") or [""]
    host = {"HTTP_HOST": trusted[0].lstrip(".")} if trusted[0] else {}
    with current_app.test_request_context(environ_overrides=host):
        _show_declared(binding)
        options = json.dumps(binding.templates.pusher_options())
    click.echo(f"A page does: new Pusher({json.dumps(binding.client.key)}, {options})")
    problems = list(_problems(binding.handlers))
    for problem in problems:
        click.echo(f"\nNot well: {problem}")
    if webhook_url:
        _probe(binding.client, webhook_url)
    with _api() as client:
        complete(client.channels_info())["channels"]
    if binding.settings.backend is LogBackend:
        click.echo("\nNothing is sent: PUSHER_BACKEND is 'log'.")
    else:
        click.echo(f"\n{_base_url(client)} accepts these credentials.")
    if problems:
        raise click.exceptions.Exit(1)


def _problems(handlers: Handlers) -> Iterator[str]:
    """What no request shows, or only one that fails."""
    for key, meant in strangers(current_app.config).items():
        yield f"{key} is no setting of Flask-Pusher. Is {meant} meant?"
    for name in sorted(set(handlers.events).difference(rules.WEBHOOK_EVENTS)):
        yield f"@pusher.webhooks.event({name!r}): Channels sends no event of this name."
    asked = (*handlers.auth.patterns.values(), *handlers.channel_data.patterns.values())
    for pattern, _ in chain(asked, *handlers.events.values()):
        try:
            if pattern:
                pattern.compile(current_app.url_map)
        except (LookupError, ValueError) as error:  # noqa: PERF203 - each may be one
            yield str(error)


def _in_force(binding: Binding) -> Iterator[tuple[str, Any]]:
    """Each setting, with the value that is in force: the client's, where it has one."""
    settings, client = binding.settings, binding.client
    names = {kind: name for name, kind in BACKENDS.items()}
    for row in TABLE:
        value = getattr(client, row.field, getattr(settings, row.field))
        if row.field == "backend":
            value = names.get(value, type(client.http).__name__)
        if not value and value == row.default:
            value = "(not set)"
        elif row.shown == NEVER:
            value = "(set, not shown)"
        yield row.key, value or repr(value)


def _show_declared(binding: Binding) -> None:
    handlers, models = binding.handlers, binding.models.declared.values()
    click.echo(f"\nWho may subscribe, asked at {_url('auth')}:")
    _show_channel_handlers(handlers.auth, "nobody: declare @pusher.auth")
    click.echo("What members see of each other:")
    _show_channel_handlers(handlers.channel_data, _NO_DATA)
    user_auth = handlers.user_auth.handler
    click.echo(f"Who the user is, asked at {_url('user_auth')}:")
    click.echo(f"  {_named(user_auth) if user_auth else _NO_USER}")
    click.echo("Webhooks, every kind at one URL, or each group at its own:")
    every = {name: [one for _, one in declared] for name, declared in handlers.events.items()}
    click.echo(f"  {_url('events')}")
    for group, slot in handlers.groups.items():
        heard = [slot.handler] if slot.handler else []
        heard += [one for name in rules.WEBHOOK_GROUPS[group] for one in every.get(name, ())]
        names = ", ".join(map(_named, heard)) or "(no handler)"
        click.echo(f"  {_url(f'{group}_event')}  {names}")
    if models:
        click.echo("Whose changes pages are told of, and who names the channels:")
    for one in models:
        click.echo(f"  {one.model.__name__:36}  {_named(one.function)}")


def _show_channel_handlers(declared: ChannelHandlers, without: str) -> None:
    for pattern, handler in declared.patterns.values():
        click.echo(f"  {pattern.text:36}  {_named(handler)}")
    if declared.bare.handler:
        click.echo(f"  {'(every other channel)':36}  {_named(declared.bare.handler)}")
    elif declared.is_empty:
        click.echo(f"  {without}")


def _named(handler: Any) -> str:
    name = getattr(handler, "__qualname__", None)
    return f"{handler.__module__}.{name}" if name else repr(handler)


def _probe(client: Client, url: str) -> None:
    """Post a webhook as the service does, with no events in it."""
    body = json.dumps({"time_ms": time.time_ns() // 1_000_000, "events": []})
    headers = webhook_headers(client.key, client.secret, body)
    host = ""
    try:
        host = urlsplit(url).hostname or ""
        options = {"headers": headers, "allow_redirects": False, **proxies_for(host)}
        answer = requests.post(url, body, timeout=client.timeout, **options)
    except (requests.RequestException, ValueError) as error:
        happened, _ = in_words(error, host, client.timeout)
        raise click.ClickException(f"{url} cannot be reached: {happened}.") from None
    if (answer.status_code, answer.text) != (200, "OK"):
        raise click.ClickException(f"{url} answers {answer.status_code}: {_meaning(answer)}.")
    click.echo(f"\n{url} takes webhooks (status {answer.status_code}).")


def _meaning(answer: Any) -> str:
    """Why a webhook is not taken: our routes say so themselves."""
    if ours := re.search(r"This (?:webhook|application) [^<]+", html.unescape(answer.text)):
        return ours[0].strip().rstrip(".")
    if "Location" in answer.headers:
        return f"it redirects to {answer.headers['Location']}, and the service does not follow"
    if answer.ok:
        return "something else does, a login page for one, and the service takes that for a yes"
    if answer.status_code in (404, 405):
        return "no webhook route is there"
    if 400 <= answer.status_code < 404:
        return "something before it refuses, CSRF protection for one. Exempt pusher.blueprint"
    return "only 2xx counts; the service sends it again"


def _url(endpoint: str) -> str:
    """The URL of a route, whose beginning an application knows if ``SERVER_NAME`` is set."""
    path, config = url_for(f"pusher.{endpoint}"), current_app.config
    return f"{config['PREFERRED_URL_SCHEME']}://{config['SERVER_NAME'] or 'YOUR-SITE'}{path}"


# -- The others -----------------------------------------------------------------------------------


@COMMANDS.command()
@click.argument("channel")
@click.argument("event")
@click.argument("data", default="{}")
@click.option("--text", "is_text", is_flag=True, help="Send DATA as text, whatever it looks like.")
def trigger(channel: str, event: str, data: str, is_text: bool) -> None:
    """Publish EVENT on CHANNEL. DATA is JSON, or just text; an empty object if left out."""
    if not is_text:
        _expect_json(data)
    info = [] if rules.is_encrypted(channel) else ["subscription_count"]
    with _api() as client:
        answer = complete(client.trigger(channel, event, data, info=info))
        count = answer.get("channels", {}).get(channel, {}).get("subscription_count")
    if isinstance(client.http, LogBackend):
        click.echo("Nothing was sent: PUSHER_BACKEND is 'log'.")
    elif count is None:
        click.echo("Published.")
    else:
        click.echo(f"Published to {count} subscriber{'s' * (count != 1)}.")


def _expect_json(data: str) -> None:
    try:
        if data.strip()[:1] in ("{", "[", '"'):
            json.loads(data, parse_constant=expect.no_constant)
    except (ValueError, RecursionError) as error:
        problem = f"it looks like JSON and is none ({error}). --text sends it as text."
        raise click.BadParameter(problem, param_hint="DATA") from None


@COMMANDS.command()
@click.option("--prefix", default="", help="Only channels whose names start with this.")
def channels(prefix: str) -> None:
    """List the channels that have subscribers; of presence channels, asked for by --prefix
    presence-, with the number of their members."""
    attributes = ["user_count"] if rules.is_presence(prefix) else []
    with _api() as client:
        found = complete(client.channels_info(prefix, attributes))["channels"]
        for name in sorted(found):
            count = (found[name] or {}).get("user_count")
            click.echo(name if count is None else f"{name}  {count}")


@COMMANDS.command()
@click.argument("channel")
def users(channel: str) -> None:
    """List the ids of the users on the presence channel CHANNEL."""
    with _api() as client:
        for user in complete(client.users_info(channel))["users"]:
            click.echo(printable(user["id"]).encode(sys.stdout.encoding, "backslashreplace"))


@COMMANDS.command()
@click.option("--host", help="The settings' host, if it is this machine, else 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Likewise, else 6001. 0: a free one.")
@click.option("--webhooks", metavar="URL", multiple=True, help="Post webhooks there.")
@click.option("--webhook-delay", type=_SECONDS, default=_DELAY, show_default=True, help=_A_DELAY)
@click.option("--without", metavar="FEATURES", default="", help=_LEFT_OUT)
@click.option("--quiet", is_flag=True, help="Print no line for each thing that happens.")
@click.option("--cert", "certificate", type=_FILE, help="A certificate's file, to speak TLS.")
@click.option("--key", "private_key", type=_FILE, help="The file of its private key.")
def serve(webhooks: tuple[str, ...], **options: Any) -> None:
    """Run a Channels server for this application on this machine, for development."""
    from _flask_pusher.local import serve as serve_here

    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    try:
        serve_here(app, webhooks=webhooks or None, **options)
    except (ImportError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None


def _base_url(client: Client) -> str:
    return f"{client.scheme}://{client.host}:{client.port}{client.path}"


@contextmanager
def _api() -> Iterator[Client]:
    """The client. Whatever goes wrong with a call of its is one line for the terminal."""
    client: Client = current_app.extensions["flask_pusher"].client
    try:
        yield client
    except PusherError as error:
        text, status = " ".join(str(error).split()), status_of(error)
        if status is not None:
            text = f"{_base_url(client)} refuses: {type(error).__name__}: {text}"
        if status == 401:
            text += " (Are PUSHER_KEY and PUSHER_SECRET each in its place? Is the clock right?)"
        raise click.ClickException(text) from None
    except (AttributeError, KeyError, TypeError):
        problem = f"{_base_url(client)} gave an answer of another form than Channels' is."
        raise click.ClickException(problem) from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
