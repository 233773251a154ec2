"""The two views that browsers ask: may this page subscribe, and who is its user."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Flask, abort, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Response

from _flask_pusher import rules
from _flask_pusher.client import MASTER_KEY, Client, text_id
from _flask_pusher.handlers import (
    ChannelHandlers,
    Found,
    Handler,
    Matcher,
    Slot,
    finished,
    name_of,
)
from _flask_pusher.settings import Settings

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

_PLAIN = (bool, dict, int, str, type(None))
"""What handlers return most, and is neither a response nor unfinished."""
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Authorisation:
    """What the two routes answer in one application."""

    def __init__(
        self,
        app: Flask,
        client: Client,
        settings: Settings,
        auth: ChannelHandlers,
        channel_data: ChannelHandlers,
        user_auth: Slot,
    ) -> None:
        self.app = app
        self.client = client
        self.max_channels = settings.auth_max_channels
        self.declared = auth
        self.auth_handlers = Matcher(auth, app)
        self.data_handlers = Matcher(channel_data, app)
        self.user_auth_slot = user_auth

    # -- Channels --

    def auth(self) -> ResponseReturnValue:
        """Authorise one channel, or the channels of a batch as pusher-js-auth sends it."""
        if self.declared.bare.handler is None and not self.declared.patterns:
            self._refuse("no @pusher.auth handler is declared.")
        fields = _posted_fields()
        socket_id = _posted_socket_id(fields)
        if "channel_name" in fields:
            answer: Any = self._authorise(fields["channel_name"], socket_id)
        else:
            names = _posted_batch(fields, self.max_channels)
            answer = {name: self._answer(name, socket_id) for name in names}
        return self.app.json.response(answer)

    def _answer(self, channel: str, socket_id: str) -> dict[str, Any]:
        """One channel's part of the answer to a batch."""
        try:
            return {"status": 200, "data": self._authorise(channel, socket_id)}
        except HTTPException as refusal:
            return {"status": refusal.get_response().status_code}

    def _authorise(self, channel: Any, socket_id: str) -> dict[str, str]:
        if not rules.is_channel_name(channel):
            abort(
                400,
                f"channel_name should be 1 to {rules.NAME_LENGTH} of the characters"
                f" {rules.CHARACTERS}.",
            )
        if not rules.needs_authorisation(channel):
            abort(404, "Only private and presence channels are authorised.")
        if rules.is_encrypted(channel) and not self.client.can_encrypt:
            abort(404, f"Encrypted channels need {MASTER_KEY}.")
        found = self.auth_handlers.find(channel)
        if found is None:
            self._refuse(f"no @pusher.auth handler is for the channel {channel!r}.")
        consent = self._call(found, channel, socket_id)
        if consent is not True:
            self._expect_consent(consent, found.handler, channel)
        channel_data = (
            self._channel_data(channel, socket_id) if rules.is_presence(channel) else None
        )
        return self.client.sign_subscription(channel, socket_id, channel_data)

    def _expect_consent(self, consent: Any, handler: Handler, channel: str) -> None:
        if (
            isinstance(consent, (Iterator, type, BaseException))
            or inspect.isroutine(consent)  # a call is missing
            or hasattr(consent, "add_done_callback")  # a future
        ):
            raise TypeError(
                f"{name_of(handler)}() returned a {type(consent).__name__}, which is true whatever"
                " is in it. Return True or False."
            )
        if not consent or _is_no_with_reason(consent):
            forgotten = " Is a return missing?" if consent is None else ""
            self._refuse(
                f"{name_of(handler)}() returned {consent!r:.100} for the channel {channel!r}."
                f"{forgotten}"
            )

    def _channel_data(self, channel: str, socket_id: str) -> dict[str, Any] | None:
        """What the members of a presence channel know of this one. None where the handler gives
        nothing: then the data of the signed-in user stand for the member."""
        found = self.data_handlers.find(channel)
        if found is None:
            return {"user_id": socket_id}
        handler = found.handler
        returned = self._call(found, channel, socket_id)
        if returned is None:
            return None
        given = _as_dict(returned, handler)
        user_id = given.pop("user_id", None)
        if user_id is None:
            user_id = socket_id
            if "id" in given:
                self.app.logger.warning(
                    "%s() returned an 'id' and no 'user_id', so that each tab of a user is a member"
                    " of its own. Is 'user_id' meant?",
                    name_of(handler),
                )
        data = {"user_id": _expect_id(user_id, "'user_id'", handler, _is_member_id), **given}
        data["user_info"] = _expect_user_info(given.get("user_info", given), handler)
        return data

    # -- Users --

    def user_auth(self) -> ResponseReturnValue:
        """Sign a user in."""
        handler = self.user_auth_slot.handler
        if handler is None:
            self._refuse("no @pusher.user_auth handler is declared.")
        socket_id = _posted_socket_id(_posted_fields())
        returned = self._call(Found(handler, self.app.ensure_sync(handler), {}), socket_id)
        if returned is None or returned is False:
            self._refuse(f"{name_of(handler)}() returned {returned!r}, so there is no user.")
        user = _as_dict(returned, handler)
        if "id" not in user:
            raise ValueError(
                f"{name_of(handler)}() should return a dict with an 'id'; it has {list(user)!r:.300}."
            )
        user["id"] = _expect_id(user["id"], "'id'", handler, rules.is_user_id)
        if "user_info" in user:
            user["user_info"] = _expect_user_info(user["user_info"], handler)
        if "watchlist" in user:
            user["watchlist"] = [
                _expect_id(one, "each id of 'watchlist'", handler, rules.is_user_id)
                for one in _expect_list(user["watchlist"], handler)
            ]
        return self.app.json.response(self.client.authenticate_user(socket_id, user))

    # -- Handlers --

    def _call(self, found: Found, *arguments: str) -> Any:
        """What a handler returned, unless that is what a view refuses with: then the request is
        answered with it. A ``login_required`` around the handler may do so, or ``abort()``."""
        try:
            returned = found.call(*arguments, **found.variables)
        except HTTPException as refusal:
            if refusal.get_response().status_code >= 400:
                raise
            returned = refusal
        if isinstance(returned, _PLAIN):
            return returned
        status = None if _is_no_with_reason(returned) else _status_of_response(returned)
        if status is not None:
            if status >= 400:
                abort(self.app.make_response(returned))
            self._refuse(
                f"{name_of(found.handler)}() returned a response of status {status}, which a browser"
                " would take for an answer. Return the value itself."
            )
        return finished(returned, found.handler)

    def _refuse(self, reason: str) -> NoReturn:
        self.app.logger.debug("Refused at %s: %s", request.path, reason)
        abort(403, "This user may not do that.")


def _is_no_with_reason(returned: Any) -> bool:
    """Whether this is ``(False, "why")``, which is true as every tuple is."""
    first = returned[0] if type(returned) is tuple and returned else True
    return first is False or first is None


def _status_of_response(returned: Any) -> int | None:
    """The status of what a view answers with; None for any other value."""
    if isinstance(returned, Response):
        return int(returned.status_code)
    if isinstance(returned, HTTPException):
        return int(returned.get_response().status_code)
    # A named tuple may be a user, and a plain one any true value.
    if type(returned) is tuple and 2 <= len(returned) <= 3:
        status = returned[1]
        if isinstance(status, str) and status[:3].isdecimal():
            return int(status[:3])
        if isinstance(status, int) and 100 <= status <= 599:
            return int(status)
        return _status_of_response(returned[0])
    return None


def _as_dict(returned: Any, handler: Handler) -> dict[str, Any]:
    try:
        return dict(returned)  # a mapping, or pairs as 3.0 took them
    except (TypeError, ValueError):
        raise TypeError(
            f"{name_of(handler)}() should return a dict, or None; it returned a"
            f" {type(returned).__name__}."
        ) from None


def _is_member_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= rules.USER_ID_LENGTH


def _expect_id(value: Any, place: str, handler: Handler, is_id: Any) -> str:
    text = text_id(value)
    if not is_id(text):
        raise ValueError(
            f"{name_of(handler)}() should return as {place} a number, or text of 1 to"
            f" {rules.USER_ID_LENGTH} characters (of a signed-in user: {rules.CHARACTERS}); it"
            f" returned {value!r:.300}."
        )
    return str(text)


def _expect_user_info(value: Any, handler: Handler) -> Mapping[str, Any]:
    if not isinstance(value, (dict, Mapping)):  # a dict is told sooner
        raise TypeError(
            f"{name_of(handler)}() should return a 'user_info' that is a dict; it returned a"
            f" {type(value).__name__}. The service takes nothing else."
        )
    return dict(value)


def _expect_list(value: Any, handler: Handler) -> Iterable[Any]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(
            f"{name_of(handler)}() should return a 'watchlist' that is a list of ids; it returned a"
            f" {type(value).__name__}."
        )
    return value


# -- What was posted ------------------------------------------------------------------------------


def socket_id_of_request() -> str | None:
    """The calling socket: X-Socket-ID, else a form's or JSON body's ``socket_id``."""
    header = request.headers.get("X-Socket-ID")
    if header is not None:
        return header if rules.is_socket_id(header) else None
    fields: Mapping[str, Any] | None = None
    try:
        if request.mimetype == _FORMS[0]:
            request.get_data()  # kept, so that the view can still read it
        if request.mimetype in _FORMS:
            fields = request.form
        elif request.is_json:
            fields = _json_object()
    except (RequestEntityTooLarge, OSError):  # as the view is told when it reads the body
        pass
    value = (fields or {}).get("socket_id")
    return value if rules.is_socket_id(value) else None


def _json_object() -> dict[str, Any] | None:
    """The JSON object that was posted, whatever its type says; None where it is none."""
    try:
        found = request.get_json(force=True, silent=True)
    except RecursionError:
        return None
    return found if isinstance(found, dict) else None


def _posted_fields() -> Mapping[str, Any]:
    """The form of pusher-js, or the JSON object of axios, Laravel Echo and mobile clients."""
    # A plain dict, because a batch asks it for each of its channels.
    try:
        fields = request.form.to_dict() or _json_object()
    except OSError:  # its chunks are none, or it stopped coming
        abort(400, "The body cannot be read.")
    if fields is None:
        abort(
            400,
            "The body should be a form, with the Content-Type application/x-www-form-urlencoded,"
            f" or a JSON object; the Content-Type is {request.mimetype or 'not given'!r:.100}.",
        )
    return fields


def _posted_socket_id(fields: Mapping[str, Any]) -> str:
    socket_id = fields.get("socket_id")
    if not rules.is_socket_id(socket_id):
        abort(
            400,
            "socket_id should be two numbers joined by a dot, as Channels gave it, of at most"
            f" {rules.SOCKET_ID_DIGITS} digits each.",
        )
    return str(socket_id)


def _posted_batch(fields: Mapping[str, Any], most: int) -> Iterable[str]:
    """The channels of a batch, each once."""
    names: list[Any] = []
    for number in range(most + 1):
        field = f"channel_name[{number}]"
        if field not in fields:
            break
        names.append(fields[field])
    else:
        abort(413, f"At most {most} channels in one request.")
    if not names or not names[0]:
        abort(400, "Name the channel in channel_name, or several in channel_name[0] and on.")
    if set(map(type, names)) != {str}:
        abort(400, "Each channel_name should be text.")
    return dict.fromkeys(names)
