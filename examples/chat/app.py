"""A chat: rooms, who is here, who is typing, notes to one user, an encrypted room, and webhooks.

``python run.py`` starts it, with a local Channels server unless the environment has ``PUSHER_*``
settings for another. The page's half is ``static/chat.js``.
"""

from __future__ import annotations

import os
import secrets
import time
import unicodedata
from collections import deque
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from flask import (
    Flask,
    Response,
    abort,
    redirect,
    render_template,
    request,
    send_from_directory,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadGateway, HTTPException

from flask_pusher import Pusher, PusherError

NAME_LENGTH = 24  # characters
TEXT_LENGTH = 500
USER_ID_LENGTH = 128  # what Channels takes
USERS_PER_BROWSER = 8
WEBHOOKS = "private-webhooks"
WEBHOOK_FIELDS = ("name", "channel", "user_id", "event", "subscription_count")
PUSHER_JS = "https://cdn.jsdelivr.net/npm/pusher-js@8.6.0/dist/web/pusher-with-encryption.min.js"
SECURITY_POLICY = (
    f"default-src 'self'; script-src 'self' {PUSHER_JS}; connect-src http: https: ws: wss:;"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

app = Flask(__name__)
app.config.update(
    SECRET_KEY=secrets.token_hex(),
    SESSION_COOKIE_NAME="flask-pusher-chat",  # all ports of a host share its cookies
    SESSION_COOKIE_SAMESITE="Lax",
    MAX_CONTENT_LENGTH=1024 * 1024,
)
app.config.update(
    (key, value)
    for key, value in os.environ.items()
    if key.startswith(("PUSHER_", "CHAT_")) or key == "SECRET_KEY"
)
pusher = Pusher(app)

# In memory, because this is one process. Several would share a database.
webhooks: deque[dict[str, Any]] = deque(maxlen=100)


class User(NamedTuple):
    id: str
    name: str


class Room(NamedTuple):
    title: str
    about: str
    encrypted: bool = False
    is_open: bool = True


ROOMS = {
    "lobby": Room("Lobby", "Come in and say hello."),
    "garden": Room("Garden", "For slow talk and good weather."),
    "vault": Room("Vault", "Messages are encrypted. Channels cannot read them.", encrypted=True),
    "attic": Room("Attic", "Closed for repairs.", is_open=False),
}


def channel_of_messages(room: str) -> str:
    """A cache channel: Channels keeps the last message, for who comes next."""
    return f"private-{'encrypted-' if ROOMS[room].encrypted else ''}cache-room-{room}"


def current_user() -> User:
    """Who this tab is. A browser may hold several users, one a tab, so that two tabs can talk."""
    user_id = request.values.get("user", "")
    return User(user_id, session.get("names", {}).get(user_id) or abort(401, "You signed out."))


def is_here(user_id: str) -> bool:
    """Whether a user is in any room. Channels knows, so the application need not remember."""
    return any(
        {"id": user_id} in pusher.client.users_info(f"presence-room-{room}")["users"]
        for room in ROOMS
        if ROOMS[room].is_open
    )


# -- Who may listen, who they are, and what Channels tells of them --------------------------------


@pusher.auth("presence-room-<room>")
@pusher.auth("private-cache-room-<room>")
@pusher.auth("private-encrypted-cache-room-<room>")
def may_enter(channel_name: str, socket_id: str, room: str) -> bool:
    return bool(current_user()) and room in ROOMS and ROOMS[room].is_open


@pusher.auth(WEBHOOKS)
def may_watch(channel_name: str, socket_id: str) -> bool:
    return bool(current_user())


@pusher.channel_data("presence-room-<room>")
def member(channel_name: str, socket_id: str, room: str) -> dict[str, str]:
    user = current_user()
    return {"user_id": user.id, "name": user.name}


@pusher.user_auth
def user_of_connection(socket_id: str) -> dict[str, str]:
    return {"id": current_user().id}


def show_webhook(event: dict[str, Any]) -> None:
    """Keep it for the pages that come later, and publish it to those that are open."""
    if event["channel"] == WEBHOOKS:  # or each page that opens the log would fill it
        return
    webhook = {key: event[key] for key in WEBHOOK_FIELDS if key in event}
    webhook |= {"id": secrets.token_hex(8), "time": time.time()}
    webhooks.append(webhook)
    pusher.defer(WEBHOOKS, "webhook", webhook)


for name in ("channel_occupied", "channel_vacated", "member_added", "member_removed"):
    pusher.webhooks.event(name)(show_webhook)
for name in ("client_event", "cache_miss", "subscription_count"):
    pusher.webhooks.event(name)(show_webhook)


@app.get("/webhooks")
def recent_webhooks() -> list[dict[str, Any]]:
    current_user()
    return list(webhooks)


# -- Signing in, by name only: whoever knows a name that is not in use may take it ----------------


@app.get("/")
def index() -> str:
    return render_template("sign_in.html", names=session.get("names", {}))


@app.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    names = session.get("names", {})
    name = " ".join(unicodedata.normalize("NFKC", request.form.get("name", "")).split())
    # The name in the characters that Channels allows. Ana and ana are one.
    user_id = quote(name.casefold(), safe="").replace("~", "%7E").replace("%", "=")
    refusal = None
    if not any(character.isalnum() for character in name):
        refusal = "A name needs a letter or a digit."
    elif not name.isprintable():
        refusal = "A name cannot have invisible characters."
    elif len(name) > NAME_LENGTH or len(user_id) > USER_ID_LENGTH:
        refusal = f"This name is too long. {NAME_LENGTH} letters are the most."
    elif user_id not in names and is_here(user_id):
        refusal = f"There is a {name} here already. Take another name."
    if refusal:
        return render_template("sign_in.html", names=names, name=name, refusal=refusal), 422
    session["names"] = dict([*names.items(), (user_id, name)][-USERS_PER_BROWSER:])
    return redirect(url_for("show_room", room="lobby", user=user_id))


@app.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    user_id = request.form.get("user", "")
    names = session.get("names", {})
    if user_id in names:
        session["names"] = {key: name for key, name in names.items() if key != user_id}
        try:
            pusher.client.terminate_user_connections(user_id)
        except PusherError as error:  # nothing may keep anybody from signing out
            app.logger.error("Channels: %s", error)
    return redirect(url_for("index"))


# -- Talking --------------------------------------------------------------------------------------


@app.get("/rooms/<room>")
def show_room(room: str) -> ResponseReturnValue:
    if request.args.get("user") not in session.get("names", {}):
        return redirect(url_for("index"))
    if room not in ROOMS:
        abort(404, "There is no such room.")
    channel = channel_of_messages(room)
    return render_template("room.html", user=current_user(), room=room, channel=channel)


@app.post("/rooms/<room>/messages")
def send_message(room: str) -> ResponseReturnValue:
    message = what_was_written()
    if room not in ROOMS or not ROOMS[room].is_open:
        abort(403, "This room is closed.")
    pusher.trigger(channel_of_messages(room), "message", message, pusher.socket_id)
    return message


@app.post("/notes")
def send_note() -> ResponseReturnValue:
    note = what_was_written()
    to = request.form.get("to", "")
    if not is_here(to):
        abort(404, "Not sent: they have left.")
    pusher.client.send_to_user(to, "note", note)
    return note


def what_was_written() -> dict[str, Any]:
    """A message, which the others get by Channels and the page that sent it as the answer."""
    user = current_user()
    text = " ".join(request.form.get("text", "").split())
    if not 1 <= len(text) <= TEXT_LENGTH:
        abort(422, f"Write something, of at most {TEXT_LENGTH} characters.")
    message = {"id": secrets.token_hex(8), "text": text, "time": int(time.time())}
    return {**message, "user": user.id, "name": user.name}


# -- What protects the users, and tells them ------------------------------------------------------


@app.before_request
def refuse_other_sites() -> None:
    """No other site's page may post. A browser names the page's origin; webhooks have none."""
    origin = request.headers.get("Origin")
    if request.method == "POST" and origin and urlsplit(origin).netloc != request.host:
        abort(403, "Posts from other sites are refused.")


@app.after_request
def let_no_text_run(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = SECURITY_POLICY
    return response


@app.errorhandler(HTTPException)
def tell(error: HTTPException) -> ResponseReturnValue:
    if request.accept_mimetypes.accept_html:
        return render_template("error.html", error=error), error.code or 500
    return {"error": error.description}, error.code or 500


@app.errorhandler(PusherError)
def tell_of_channels(error: PusherError) -> ResponseReturnValue:
    app.logger.error("Channels: %s", error)
    return tell(BadGateway("The Channels service failed. The application's log says why."))


@app.get("/pusher.js")
def pusher_js() -> Response:
    """npm's copy, where ``run.py`` has found one."""
    return send_from_directory(*os.path.split(app.config["CHAT_PUSHER_JS"]))


@app.context_processor
def variables_of_templates() -> dict[str, Any]:
    address = url_for("pusher_js") if "CHAT_PUSHER_JS" in app.config else PUSHER_JS
    limits = NAME_LENGTH, TEXT_LENGTH
    return {"pusher_js": address, "rooms": ROOMS, "log": WEBHOOKS, "limits": limits}
