"""A chat: rooms, who is here, who is typing, notes to one user, an encrypted room, and webhooks.

``python run.py`` starts it, with a local Channels server unless the environment has ``PUSHER_*``
settings for another. The page's half is ``static/chat.js``.
"""

from __future__ import annotations

import os
import secrets
import threading
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
MESSAGES_KEPT = 100  # of a room, and webhooks
FACES = 12
WEBHOOKS = "private-webhooks"
WEBHOOK_FIELDS = ("user_id", "event", "subscription_count")
SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' https://cdn.jsdelivr.net/npm/;"
    " connect-src http: https: ws: wss:;"
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
if "CHAT_PUSHER_JS" in app.config:  # npm's copy, where `run.py` has found one
    app.config["PUSHER_JS_URL"] = "/pusher.js"
pusher = Pusher(app)


class User(NamedTuple):
    id: str
    name: str
    came: float
    """When they signed in: what was said before is not for them, but for the last message."""


class Message(NamedTuple):
    """Something said in a room, a note to one user, or the notice that somebody came or left."""

    user: str
    name: str
    text: str
    to: str = ""
    to_name: str = ""
    is_notice: bool = False
    time: float = 0


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

# In memory, because this is one process. Several would share a database.
webhooks: deque[tuple[float, dict[str, Any]]] = deque(maxlen=MESSAGES_KEPT)
messages: dict[str, deque[Message]] = {room: deque(maxlen=MESSAGES_KEPT) for room in ROOMS}
here: set[tuple[str, str]] = set()
"""Who is in which room, by what webhooks have told. One may come twice."""
names: dict[str, str] = {}
faces: dict[str, int] = {}
one_face_at_a_time = threading.Lock()


def channel_of_messages(room: str) -> str:
    return f"private-{'encrypted-' if ROOMS[room].encrypted else ''}room-{room}"


def current_user() -> User:
    """Who this tab is. A browser may hold several users, one a tab, so that two tabs can talk."""
    user_id = request.values.get("user", "")
    return User(user_id, *(session.get("names", {}).get(user_id) or abort(401, "You signed out.")))


def show_in(room: str, message: Message) -> None:
    """Keep it for the pages, and tell those that are open that there is something new."""
    messages[room].append(message._replace(time=time.time()))
    who = {} if message.is_notice else {"user": message.user}  # who types no more
    pusher.defer(channel_of_messages(room), "said", who)


def is_here(user_id: str) -> bool:
    """Whether a user is in any room. Channels knows, so the application need not remember."""
    return any(
        {"id": user_id} in pusher.client.users_info(f"presence-room-{room}")["users"]
        for room in ROOMS
        if ROOMS[room].is_open
    )


# -- Who may listen, who they are, and what Channels tells of them --------------------------------


@pusher.auth("presence-room-<room>")
@pusher.auth("private-room-<room>")
@pusher.auth("private-encrypted-room-<room>")
def may_enter(channel_name: str, socket_id: str, room: str) -> bool:
    return bool(current_user()) and room in ROOMS and ROOMS[room].is_open


@pusher.auth(WEBHOOKS)
def may_watch(channel_name: str, socket_id: str) -> bool:
    return bool(current_user())


@pusher.channel_data("presence-room-<room>")
def member(channel_name: str, socket_id: str, room: str) -> dict[str, str]:
    user = current_user()
    face = url_for("face", user_id=user.id, name=user.name, _external=True)
    return {"user_id": user.id, "name": user.name, "face": face}


@pusher.user_auth
def user_of_connection(socket_id: str) -> dict[str, str]:
    return {"id": current_user().id}


@pusher.webhooks.event("member_added", "presence-room-<room>")
def came_in(event: dict[str, Any], room: str) -> None:
    user = event["user_id"]
    if (user, room) not in here:
        here.add((user, room))
        show_in(room, Message(user, names.get(user, user), "came in.", is_notice=True))


@pusher.webhooks.event("member_removed", "presence-room-<room>")
def left(event: dict[str, Any], room: str) -> None:
    user = event["user_id"]
    if (user, room) in here:
        here.remove((user, room))
        show_in(room, Message(user, names.get(user, user), "left.", is_notice=True))


def show_webhook(event: dict[str, Any]) -> None:
    if event["channel"] == WEBHOOKS:  # or each page that opens the log would fill it
        return
    webhooks.appendleft((time.time(), event))
    pusher.defer(WEBHOOKS, "webhook", {})


for name in ("channel_occupied", "channel_vacated", "member_added", "member_removed"):
    pusher.webhooks.event(name)(show_webhook)
for name in ("client_event", "subscription_count"):
    pusher.webhooks.event(name)(show_webhook)


@app.get("/webhooks")
def recent_webhooks() -> str:
    current_user()
    return render_template("webhooks.html", webhooks=list(webhooks), fields=WEBHOOK_FIELDS)


# -- Signing in, by name only: whoever knows a name that is not in use may take it ----------------


@app.get("/")
def index() -> str:
    return render_template("sign_in.html", names=session.get("names", {}))


@app.post("/sign-in")
def sign_in() -> ResponseReturnValue:
    known = session.get("names", {})
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
    elif user_id not in known and is_here(user_id):
        refusal = f"There is a {name} here already. Take another name."
    if refusal:
        return render_template("sign_in.html", names=known, name=name, refusal=refusal), 422
    names[user_id] = name
    session["names"] = dict([*known.items(), (user_id, (name, time.time()))][-USERS_PER_BROWSER:])
    return redirect(url_for("show_room", room="lobby", user=user_id))


@app.post("/sign-out")
def sign_out() -> ResponseReturnValue:
    user_id = request.form.get("user", "")
    known = session.get("names", {})
    if user_id in known:
        session["names"] = {key: name for key, name in known.items() if key != user_id}
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
    user, channel = current_user(), channel_of_messages(room)
    seen = seen_by(user, room) if ROOMS[room].is_open else []
    return render_template(
        "room.html",
        user=user,
        room=room,
        channel=channel,
        messages=seen,
        webhooks=list(webhooks),
        fields=WEBHOOK_FIELDS,
    )


@app.get("/rooms/<room>/messages")
def show_messages(room: str) -> str:
    """What is in the list, which fetches it again when there is something new."""
    user = current_user()
    if room not in ROOMS or not ROOMS[room].is_open:
        abort(403, "This room is closed.")
    return render_template("messages.html", user=user, messages=seen_by(user, room))


def seen_by(user: User, room: str) -> list[Message]:
    # A copy: another thread may add one meanwhile.
    own = [one for one in list(messages[room]) if not one.to or user.id in (one.user, one.to)]
    before = [one for one in own if one.time < user.came and not one.to and not one.is_notice]
    return [*before[-1:], *(one for one in own if one.time >= user.came)]


@app.post("/rooms/<room>/messages")
def send_message(room: str) -> ResponseReturnValue:
    user, text = what_was_written()
    if room not in ROOMS or not ROOMS[room].is_open:
        abort(403, "This room is closed.")
    show_in(room, Message(user.id, user.name, text))
    return "", 204


@app.post("/notes")
def send_note() -> ResponseReturnValue:
    user, text = what_was_written()
    to, room = request.form.get("to", ""), request.form.get("room", "")
    if room not in ROOMS or not is_here(to):
        abort(404, "Not sent: they have left.")
    note = Message(user.id, user.name, text, to, names.get(to, to), time=time.time())
    messages[room].append(note)
    for one in {user.id, to}:
        pusher.defer(pusher.user(one), "note", {"user": user.id})
    return "", 204


def what_was_written() -> tuple[User, str]:
    user = current_user()
    text = " ".join(request.form.get("text", "").split())
    if not 1 <= len(text) <= TEXT_LENGTH:
        abort(422, f"Write something, of at most {TEXT_LENGTH} characters.")
    return user, text


@app.get("/faces/<user_id>.svg")
def face(user_id: str) -> Response:
    """A letter on a colour that nobody else has, as long as there are enough."""
    with one_face_at_a_time:
        number = faces.setdefault(user_id, len(faces) % FACES)
    svg = render_template("face.svg", number=number, letter=request.args.get("name", "?")[:1])
    return app.response_class(svg, mimetype="image/svg+xml")


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
    return send_from_directory(*os.path.split(app.config["CHAT_PUSHER_JS"]))


@app.context_processor
def variables_of_templates() -> dict[str, Any]:
    return {"rooms": ROOMS, "log": WEBHOOKS, "limits": (NAME_LENGTH, TEXT_LENGTH)}


@app.template_filter()
def clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.localtime(seconds))
