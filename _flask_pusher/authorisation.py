"""The two views that browsers ask: may this page subscribe, and who is its user.

What a handler's answer means, of ``auth``, ``channel_data`` and ``user_auth`` alike:

=========================================  =====================================================
it returned                                means
=========================================  =====================================================
``False``, ``None``, what is empty or 0,   no
a user whose ``is_authenticated`` is
false, as Flask-Login's anonymous one
what a view could answer with: text,       never consent. Of status 400 or more it is the answer;
bytes, a dict, a list, a tuple, a          else 403, and a warning that says what to return. For
response, an exception of Werkzeug's       ``channel_data`` and ``user_auth`` a dict is the data
what has not run or is always true: a      an error, and never a grant
coroutine, a function, a class, a query
any other true object                      yes; for data, an error
=========================================  =====================================================

A ``LocalProxy`` is the object that it stands for. ``channel_data`` may give ``None`` and any dict.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any, NoReturn

from flask import Flask, abort, current_app, request, url_for
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Response

from _flask_pusher import handlers, rules
from _flask_pusher.api import MASTER_KEY
from _flask_pusher.client import Client
from _flask_pusher.codec import posted_object
from _flask_pusher.expect import text_id
from _flask_pusher.handlers import Found, Handler, Handlers, Matcher, is_refusal, name_of
from _flask_pusher.settings import Settings

FORBIDDEN = "This user may not do that."
_A_DICT = "a dict, or None"
_USER_INFO = "a 'user_info' that is a dict"
_LAZY = ("__iter__", "__aiter__", "__get__", "add_done_callback")
# The keys of what is answered are the protocol's, and no JSON provider's to change.
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Authorisation:
    """What the two routes answer in one application."""

    def __init__(self, app: Flask, client: Client, settings: Settings, declared: Handlers) -> None:
        self.app = app
        self.client = client
        self.max_channels = settings.auth_max_channels
        self.declared = declared
        self._matchers = {one: Matcher(one, app) for one in (declared.auth, declared.channel_data)}

    # -- Channels --

    def auth(self) -> Response:
        """Authorise one channel, or the channels of a batch as pusher-js-auth sends it."""
        if self.declared.auth.is_empty:
            _forbid("no @pusher.auth handler is declared.")
        fields, socket_id = _posted()
        if "channel_name" in fields:
            answer: Any = self._authorise(fields["channel_name"], socket_id)
        else:
            names = _posted_batch(fields, self.max_channels)
            answer = {name: self._part(name, socket_id) for name in names}
        return self._answer(answer)

    def _answer(self, content: Any) -> Response:
        return self.app.response_class(_to_json(content), mimetype="application/json")

    def _part(self, channel: str, socket_id: str) -> dict[str, Any]:
        """One channel's part of the answer to a batch."""
        try:
            return {"status": 200, "data": self._authorise(channel, socket_id)}
        except HTTPException as refusal:
            return {"status": refusal.get_response().status_code}
        except Exception as error:  # noqa: BLE001 - whatever the application handles
            return {"status": self._status_of_handled(error, channel)}

    def _status_of_handled(self, error: Exception, channel: str) -> int:
        """The status that the application's error handler has for a handler's exception, if it is
        a refusal's. Where there is no handler the exception is raised again, as a bug is."""
        try:
            response = self.app.make_response(self.app.handle_user_exception(error))
        except HTTPException as failure:
            raise RuntimeError("An error handler raised, where it should return.") from failure
        is_refused = is_refusal(response)
        _log(
            f"{type(error).__name__} was raised for the channel {channel!r}, and its error handler"
            f" answers with status {response.status_code}.",
            logging.DEBUG if is_refused else logging.WARNING,
        )
        return response.status_code if is_refused else 403

    def _authorise(self, channel: Any, socket_id: str) -> dict[str, str]:
        if not rules.is_channel_name(channel):
            _reject(400, f"channel_name should be {rules.NAME}.", channel)
        if not rules.needs_authorisation(channel):
            _reject(404, "Only private and presence channels are authorised.", channel)
        if rules.is_encrypted(channel) and not self.client.can_encrypt:
            _reject(404, f"Encrypted channels need {MASTER_KEY}.", channel)
        found = self._found(self.declared.auth, channel)
        if found is None:
            _forbid(f"no @pusher.auth handler is for the channel {channel!r}.")
        self._ask(found, "True or False, as of bool(...)", channel, socket_id)
        data = self._channel_data(channel, socket_id) if rules.is_presence(channel) else None
        return self.client.sign_subscription(channel, socket_id, data)

    def _found(self, declared: handlers.ChannelHandlers, channel: str) -> Found | None:
        matcher = self._matchers[declared]
        if matcher.patterns is not declared.patterns or matcher.bare is not declared.bare.handler:
            # Something was declared since.
            matcher = self._matchers[declared] = Matcher(declared, self.app)
        return matcher.find(channel)

    def _channel_data(self, channel: str, socket_id: str) -> dict[str, Any] | None:
        """What the members of a presence channel know of this one. None where the handler gives
        nothing: then the data of the signed-in user stand for the member."""
        found = self._found(self.declared.channel_data, channel)
        if found is None:
            return {"user_id": socket_id}
        handler = found.handler
        given = self._ask(found, _A_DICT, channel, socket_id)
        if given is None:
            return None
        user_id, user_info = given.pop("user_id", None), given.pop("user_info", None)
        user_id = socket_id if user_id is None else user_id
        user_id = _expect_id(user_id, "'user_id'", handler, _is_member_id)
        user_info = given if user_info is None else _expect_dict(user_info, _USER_INFO, handler)
        return {"user_id": user_id, **given, "user_info": user_info}

    # -- Users --

    def user_auth(self) -> Response:
        """Sign a user in."""
        handler = self.declared.user_auth.handler
        if handler is None:
            _forbid("no @pusher.user_auth handler is declared.")
        fields, socket_id = _posted()
        if any(name.startswith("channel_name") for name in fields):
            _reject(400, f"Users sign in here; channels are asked at {url_for('pusher.auth')}.")
        found = Found(handler, self.app.ensure_sync(handler), {})
        user = self._ask(found, _A_DICT, socket_id)
        if not user:
            _forbid(f"{name_of(handler)}() returned {user!r}, so there is no user.")
        user["id"] = _expect_id(user.get("id"), "'id'", handler)
        user_info, watchlist = user.pop("user_info", None), user.pop("watchlist", None)
        if user_info is not None:
            user["user_info"] = _expect_dict(user_info, _USER_INFO, handler)
        if watchlist is not None:
            is_list = isinstance(watchlist, (list, tuple, set, frozenset))
            _expect(is_list, watchlist, "a 'watchlist' that is a list of ids", handler)
            ids = [_expect_id(one, "each id of 'watchlist'", handler) for one in watchlist]
            most = rules.USERS_PER_WATCHLIST
            if len(ids) > most:
                _warn(handler, f"a 'watchlist' of {len(ids)} ids; the first {most} are watched")
            user["watchlist"] = ids
        return self._answer(self.client.authenticate_user(socket_id, user))

    # -- Handlers --

    def _ask(self, found: Found, wanted: str, *arguments: str) -> Any:
        """What a handler returned, of data a copy, unless that refuses, by the table above."""
        try:
            returned = found.call(*arguments, **found.variables)
        except HTTPException as error:  # abort()
            returned = error
        if returned is True and wanted is not _A_DICT:
            return True
        returned = handlers.object_of(returned)
        if wanted is _A_DICT and (returned is None or _is_mapping(returned)):
            return None if returned is None else dict(returned)
        name = name_of(found.handler)
        if not returned or not getattr(returned, "is_authenticated", True):
            forgotten = " Is a return missing?" if returned is None else ""
            _forbid(f"{name}() returned {returned!r:.100} for {arguments[0]!r}.{forgotten}")
        kind = type(returned).__name__
        if isinstance(returned, (Sequence, Response, HTTPException)) or _is_mapping(returned):
            response = handlers.answer_in(returned, self.app)
            if response:
                kind = f"response of status {response.status_code}"
                if is_refusal(response):
                    _log(f"{name}() refused with status {response.status_code}.")
                    if isinstance(returned, HTTPException):
                        raise returned  # for the application's error handler, if it has one
                    abort(response)
            _forbid(
                f"{name}() returned a {kind}. A view answers strangers with such a thing, so it is"
                f" no consent. Return {wanted}.",
                logging.WARNING,
            )
        if _is_always_true(handlers.finished(returned, found.handler)):
            why = f"{name}() returned a {kind}, which is true whatever is in it. Return {wanted}."
            raise TypeError(why)
        _expect(wanted is not _A_DICT, returned, wanted, found.handler)
        return returned


def _log(reason: str, level: int = logging.DEBUG) -> None:
    current_app.logger.log(level, "Refused at %s: %s", request.path, reason)


def _warn(handler: Handler, returned: str) -> None:
    current_app.logger.warning("%s() returned %s.", name_of(handler), returned)


def _forbid(reason: str, level: int = logging.DEBUG) -> NoReturn:
    """Refuse by a handler's word, which is for the log."""
    _log(reason, level)
    abort(403, FORBIDDEN)


def _reject(status: int, reason: str, found: Any = None) -> NoReturn:
    """Refuse for what was posted, and tell who posted it."""
    _log(reason if found is None else f"{reason} It is {found!r:.100}.")
    abort(status, reason)


def _is_mapping(value: Any) -> bool:
    """Whether ``dict()`` takes it by its keys: a database's rows may be no more than that."""
    return hasattr(type(value), "keys") and hasattr(type(value), "__getitem__")


def _is_always_true(value: Any) -> bool:
    """Whether it says nothing of itself: it waits to be called, iterated, awaited or looked up."""
    kind = type(value)
    has_truth = hasattr(kind, "__len__") or hasattr(kind, "__bool__")
    is_lazy = callable(value) or any(hasattr(kind, name) for name in _LAZY)
    with suppress(TypeError):  # what is iterated by its indexes tells by nothing else
        is_lazy = is_lazy or bool(iter(value))
    return isinstance(value, (type, BaseException)) or (is_lazy and not has_truth)


def _is_member_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= rules.USER_ID_LENGTH


def _expect_id(value: Any, place: str, handler: Handler, is_id: Any = rules.is_user_id) -> str:
    text = text_id(value)
    if not is_id(text):
        raise ValueError(
            f"{name_of(handler)}() should return as {place} a number, or text of 1 to"
            f" {rules.USER_ID_LENGTH} characters (of a signed-in user: {rules.CHARACTERS}); it"
            f" returned {value!r:.300}."
        )
    return str(text)


def _expect_dict(value: Any, wanted: str, handler: Handler) -> dict[str, Any]:
    _expect(_is_mapping(value), value, wanted, handler)
    return dict(value)


def _expect(is_right: bool, value: Any, wanted: str, handler: Handler) -> None:
    if not is_right:
        found = type(value).__name__
        raise TypeError(f"{name_of(handler)}() should return {wanted}; it returned a {found}.")


# -- What was posted ------------------------------------------------------------------------------


def socket_id_of_request() -> str | None:
    """The calling socket: X-Socket-ID, else a form's or JSON body's ``socket_id``."""
    found = request.headers.get("X-Socket-ID")
    if not rules.is_socket_id(found):
        # The view is told when it reads the body.
        with suppress(RequestEntityTooLarge, OSError):
            if request.mimetype == "application/x-www-form-urlencoded":
                request.get_data()  # kept, so that the view can still read it
            fields = (posted_object() or {}) if request.is_json else request.form
            found = fields.get("socket_id")
    return found if rules.is_socket_id(found) else None


def _posted() -> tuple[Mapping[str, Any], str]:
    """The form of pusher-js, or the JSON object of axios, Laravel Echo and mobile clients; and its
    ``socket_id``."""
    # A plain dict, because a batch asks it for each of its channels.
    try:
        fields = request.form.to_dict() or posted_object()
    except (OSError, HTTPException) as error:  # broken chunks, no more of it, too much
        _reject(getattr(error, "code", 400), "The body cannot be read, or is too long.")
    if fields is None:
        kind = request.mimetype or "not given"
        _reject(400, f"The body should be a form or a JSON object. Its type is {kind!r:.100}.")
    socket_id = fields.get("socket_id")
    if not rules.is_socket_id(socket_id):
        _reject(400, "socket_id should be two numbers joined by a dot, as Channels gave it.")
    return fields, str(socket_id)


def _posted_batch(fields: Mapping[str, Any], most: int) -> Iterable[str]:
    """The channels of a batch, each once."""
    keys = (f"channel_name[{number}]" for number in range(most + 1))
    names = [fields[key] for key in takewhile(fields.__contains__, keys)]
    if len(names) > most:
        _reject(413, f"At most {most} channels in one request.")
    if not names or not names[0] or set(map(type, names)) != {str}:
        _reject(400, "Name the channel in channel_name, or several in channel_name[0] and on.")
    return dict.fromkeys(names)
