"""What a Channels server does, as a table of cases that are played with ours and with soketi.

The outcomes are what the protocol's documentation, pusher-js and the servers agree on. Where soketi
does otherwise, the case says what it does, and why ours does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests
import websocket

from flask_pusher import Pusher

from .conftest import NewName
from .connection import Connection
from .servers import APP_ID, KEY

if TYPE_CHECKING:
    from tests.local.peers import Api
else:  # as pytest names the packages below its folder
    from local.peers import Api

SUCCEEDED = "pusher_internal:subscription_succeeded"
COUNT = "pusher_internal:subscription_count"
ADDED, REMOVED = "pusher_internal:member_added", "pusher_internal:member_removed"
ERROR, REFUSED = "pusher:error", "pusher:subscription_error"


class Peer:
    """A connection that tells what it was sent, as pusher-js would understand it."""

    def __init__(self, stage: Stage, connection: Connection) -> None:
        self.stage = stage
        self.connection = connection
        self.socket_id = connection.established()

    def send(self, event: str, data: Any = None, **more: Any) -> None:
        self.connection.send(event, data, **more)

    def join(self, channel: str, member: dict[str, Any] | None = None) -> Peer:
        """Subscribe, and wait until that has succeeded."""
        self.ask(channel, member)
        self.connection.frame_of(SUCCEEDED)
        return self

    def ask(self, channel: str, member: dict[str, Any] | None = None) -> None:
        auth: dict[str, Any] = {}
        if channel.startswith(("private-", "presence-")):
            auth = dict(self.stage.client.authenticate(channel, self.socket_id, member))
            auth.pop("shared_secret", None)
        self.send("pusher:subscribe", {"channel": channel, **auth})

    def told(self) -> list[Any]:
        """All that has come until now: ``(event, data)``, and the number that ends a connection."""
        self.send("pusher:ping")
        told: list[Any] = []
        while True:
            try:
                opcode, payload = self.connection.read()
            except (websocket.WebSocketException, OSError):
                return [*told, "lost"]
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return [*told, int.from_bytes(payload[:2], "big")]
            frame = json.loads(payload)
            if frame["event"] == "pusher:pong":
                return told
            data = understood(frame.get("data"))
            if frame["event"] == SUCCEEDED:
                data = data or {}  # soketi leaves an empty one out
            if frame["event"] != COUNT:  # which soketi does not send
                told.append((frame["event"], data))


def understood(data: Any) -> Any:
    if isinstance(data, str):
        try:
            return json.loads(data)
        except ValueError:
            return data
    return data


class Stage:
    """The server, and who plays on it."""

    def __init__(self, pusher: Pusher, new_name: NewName) -> None:
        self.client = pusher.client
        host, port, _ = self.client.address
        self.api = Api(f"http://{host}:{port}")
        self.name = new_name
        self.peers: list[Connection] = []

    def connect(self) -> Peer:
        self.peers.append(Connection(self.client))
        return Peer(self, self.peers[-1])

    def get(self, path: str, **query: str) -> tuple[int, Any]:
        return self.call("GET", path, b"", **query)

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return self.call("POST", path, json.dumps(body).encode())

    def call(self, method: str, path: str, body: bytes, **query: str) -> tuple[int, Any]:
        answer = self.api.call(method, path, body, {**query}, app_id=APP_ID)
        return status(answer), answer.json() if status(answer) == 200 else None


def status(answer: requests.Response) -> int:
    """The status, which soketi writes into the body of an answer that has status 200."""
    if answer.status_code != 200:
        return answer.status_code
    code: int = answer.json().get("code", 200)
    return code


@pytest.fixture
def stage(pusher: Pusher, new_name: NewName) -> Iterator[Stage]:
    stage = Stage(pusher, new_name)
    yield stage
    for connection in stage.peers:
        connection.close()


def without_words(told: list[Any]) -> list[Any]:
    """Errors and refusals by their codes: each server has its own words."""
    short: list[Any] = []
    for one in told:
        if isinstance(one, tuple) and one[0] == ERROR:
            short.append((ERROR, one[1]["code"]))
        elif isinstance(one, tuple) and one[0] == REFUSED:
            short.append((REFUSED, one[1].get("type"), one[1]["status"]))
        else:
            short.append(one)
    return short


class Case(NamedTuple):
    play: Callable[[Stage], Any]
    outcome: Any
    soketi: Any
    because: str


CASES: list[Case] = []
SAME = object()


def case(
    outcome: Any, *, soketi: Any = SAME, because: str = ""
) -> Callable[[Callable[[Stage], Any]], Callable[[Stage], Any]]:
    """Put a case into the table.

    :param outcome: what every server does.
    :param soketi: what soketi does instead, and ``because`` why ours does not.
    """
    assert (soketi is SAME) == (because == "")

    def add(play: Callable[[Stage], Any]) -> Callable[[Stage], Any]:
        CASES.append(Case(play, outcome, outcome if soketi is SAME else soketi, because))
        return play

    return add


# Frames


@case({"socket_id": True, "activity_timeout": True})
def the_welcome_has_a_socket_id_and_a_time(stage: Stage) -> Any:
    connection = Connection(stage.client)
    stage.peers.append(connection)
    welcome = understood(connection.frame()["data"])
    return {
        "socket_id": welcome["socket_id"].replace(".", "").isdigit(),
        "activity_timeout": welcome["activity_timeout"] > 0,
    }


@case([websocket.ABNF.OPCODE_PONG, b"there?"])
def a_websocket_ping_is_answered(stage: Stage) -> Any:
    connection = Connection(stage.client)
    stage.peers.append(connection)
    connection.established()
    connection._websocket.ping("there?")
    return list(connection.read())


@case(
    [(ERROR, None)],
    soketi=[],
    because="Silence leaves a developer alone with a typing error.",
)
def a_frame_that_is_not_json_does_not_end_the_connection(stage: Stage) -> Any:
    peer = stage.connect()
    peer.connection.send_text("{")
    return without_words(peer.told())


@case(
    [(ERROR, 4301)],
    soketi=[],
    because="An event that goes nowhere is worth a word.",
)
def an_event_that_clients_may_not_send_goes_nowhere(stage: Stage) -> Any:
    news = stage.name("private-news")
    peer, other = stage.connect().join(news), stage.connect().join(news)
    peer.send("order-created", {}, channel=news)
    assert other.told() == []
    return without_words(peer.told())


# Subscriptions


@case([(SUCCEEDED, {})])
def a_public_channel_needs_nothing(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("news"))
    return peer.told()


@case([(SUCCEEDED, {})])
def a_private_channel_needs_a_signature(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("private-news"))
    return peer.told()


@case([(SUCCEEDED, {})])
def so_does_an_encrypted_one(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("private-encrypted-news"))
    return peer.told()


@case([(REFUSED, "AuthError", 401)] * 3)
def without_or_with_a_wrong_signature_it_is_refused(stage: Stage) -> Any:
    channel = stage.name("private-news")
    peer, other = stage.connect(), stage.connect()
    for auth in (f"{KEY}:{'0' * 64}", stage.client.authenticate(channel, other.socket_id)["auth"]):
        peer.send("pusher:subscribe", {"channel": channel, "auth": auth})
    presence = stage.name("presence-room")
    auth = stage.client.authenticate(presence, peer.socket_id, {"user_id": "ana"})["auth"]
    other_data = json.dumps({"user_id": "ben"})
    peer.send("pusher:subscribe", {"channel": presence, "auth": auth, "channel_data": other_data})
    return without_words(peer.told())


@case(
    [(REFUSED, "InvalidChannel", 400)],
    soketi=[(REFUSED, None, 4009)],
    because="A refusal has a type, and 4009 is for authorisation.",
)
def a_name_with_a_space_is_refused(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask("two words")
    return without_words(peer.told())


@case(
    [(REFUSED, "InvalidChannel", 400)],
    soketi=[(REFUSED, "LimitReached", 4009)],
    because="4009 is for authorisation.",
)
def a_name_of_201_characters_is_refused(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask("x" * 201)
    return without_words(peer.told())


@case(
    [(SUCCEEDED, {}), (ERROR, None)],
    soketi=[(SUCCEEDED, {}), (SUCCEEDED, {})],
    because="A page that subscribes twice has a fault, and learns of it.",
)
def a_second_subscription_changes_nothing(stage: Stage) -> Any:
    news = stage.name("news")
    peer = stage.connect()
    peer.ask(news)
    peer.ask(news)
    told = peer.told()
    stage.client.trigger(news, "headline", 1)
    assert peer.told() == [("headline", 1)]
    return without_words(told)


@case([("headline", 1)])
def nothing_comes_after_unsubscribing(stage: Stage) -> Any:
    news = stage.name("news")
    peer = stage.connect().join(news)
    stage.client.trigger(news, "headline", 1)
    told = peer.told()
    peer.send("pusher:unsubscribe", {"channel": news})
    assert peer.told() == []
    stage.client.trigger(news, "headline", 2)
    return told + peer.told()


# Presence


@case([(SUCCEEDED, {"presence": {"ids": ["ana"], "hash": {"ana": {"name": "Ana"}}, "count": 1}})])
def a_member_gets_the_members(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("presence-room"), {"user_id": "ana", "user_info": {"name": "Ana"}})
    return peer.told()


@case(
    [(SUCCEEDED, {"presence": {"ids": ["ana"], "hash": {"ana": None}, "count": 1}})],
    soketi=[(SUCCEEDED, {"presence": {"ids": ["ana"], "hash": {}, "count": 1}})],
    because="pusher-js looks for itself in the hash, and has no members.me otherwise.",
)
def a_member_without_info_is_in_the_hash(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("presence-room"), {"user_id": "ana"})
    return peer.told()


@case(
    [
        (ADDED, {"user_id": "ben", "user_info": {"name": "Ben"}}),
        (REMOVED, {"user_id": "ben"}),
    ]
)
def others_hear_of_a_user_once_however_many_tabs_there_are(stage: Stage) -> Any:
    room = stage.name("presence-room")
    ben = {"user_id": "ben", "user_info": {"name": "Ben"}}
    ana = stage.connect().join(room, {"user_id": "ana", "user_info": {}})
    tabs = [stage.connect().join(room, ben) for _ in range(2)]
    told = ana.told()
    tabs[0].send("pusher:unsubscribe", {"channel": room})
    assert tabs[0].told() == []
    told += ana.told()
    tabs[1].send("pusher:unsubscribe", {"channel": room})
    assert tabs[1].told() == []
    return told + ana.told()


@case([(REFUSED, "LimitReached", 4100)])
def the_hundred_and_first_member_is_refused(stage: Stage) -> Any:
    room = stage.name("presence-room")
    for number in range(100):
        stage.connect().join(room, {"user_id": str(number), "user_info": {}})
    late = stage.connect()
    late.ask(room, {"user_id": "late", "user_info": {}})
    return without_words(late.told())


@case([(REFUSED, "LimitReached", 4301)])
def an_info_of_three_kilobytes_is_refused(stage: Stage) -> Any:
    peer = stage.connect()
    info = {"text": "x" * 3000}
    peer.ask(stage.name("presence-room"), {"user_id": "ana", "user_info": info})
    return without_words(peer.told())


# Events from page to page


@case([("client-typing", {"n": [1]}), ("client-typing", "text"), ("client-typing", 7)])
def a_client_event_reaches_the_others_as_it_came(stage: Stage) -> Any:
    channel = stage.name("private-chat")
    sender, other = stage.connect().join(channel), stage.connect().join(channel)
    for data in ({"n": [1]}, "text", 7):
        sender.send("client-typing", data, channel=channel)
    assert sender.told() == []
    return other.told()


@case({"event": "client-typing", "data": {"n": 1}, "user_id": "ana"})
def on_a_presence_channel_it_says_whose_it_is(stage: Stage) -> Any:
    room = stage.name("presence-room")
    ana = stage.connect().join(room, {"user_id": "ana", "user_info": {}})
    ben = stage.connect().join(room, {"user_id": "ben", "user_info": {}})
    ana.send("client-typing", {"n": 1}, channel=room)
    frame = ben.connection.frame_of("client-typing")
    assert frame.pop("channel") == room
    return frame


@case(
    [(ERROR, 4301)],
    soketi=[("client-typing", {})],
    because="Anybody may subscribe to a public channel; the hosted service refuses.",
)
def on_a_public_channel_there_are_none(stage: Stage) -> Any:
    news = stage.name("news")
    peer, other = stage.connect().join(news), stage.connect().join(news)
    peer.send("client-typing", {}, channel=news)
    return without_words(peer.told() + other.told())


@case(
    [(ERROR, 4301)],
    soketi=[],
    because="A developer wants to know why nothing arrives.",
)
def who_is_not_subscribed_sends_none(stage: Stage) -> Any:
    channel = stage.name("private-chat")
    other, outsider = stage.connect().join(channel), stage.connect()
    outsider.send("client-typing", {}, channel=channel)
    told = without_words(outsider.told())
    assert other.told() == []
    return told


@case([(ERROR, 4301)])
def a_name_of_201_characters_is_none(stage: Stage) -> Any:
    channel = stage.name("private-chat")
    sender, other = stage.connect().join(channel), stage.connect().join(channel)
    sender.send("client-" + "x" * 194, {}, channel=channel)
    told = without_words(sender.told())
    assert other.told() == []
    return told


# Cache channels


@case([(SUCCEEDED, {}), ("pusher:cache_miss", None)])
def a_cache_channel_that_is_empty_says_so(stage: Stage) -> Any:
    peer = stage.connect()
    peer.ask(stage.name("cache-score"))
    return peer.told()


@case([(SUCCEEDED, {}), ("goal", {"home": 2})])
def a_cache_channel_begins_with_its_last_event(stage: Stage) -> Any:
    channel = stage.name("private-cache-score")
    for goals in (1, 2):
        stage.client.trigger(channel, "goal", {"home": goals})
    peer = stage.connect()
    peer.ask(channel)
    return peer.told()


# Users


@case([("pusher:signin_success", {"id": "ana"}), (SUCCEEDED, {}), ("note", 1)])
def a_user_who_signs_in_gets_a_users_events(stage: Stage) -> Any:
    peer = stage.connect()
    peer.send("pusher:signin", stage.client.authenticate_user(peer.socket_id, {"id": "ana"}))
    told = [(event, json.loads(data["user_data"])) for event, data in peer.told()]
    peer.send("pusher:subscribe", {"channel": "#server-to-user-ana"})
    told += peer.told()
    stage.client.send_to_user("ana", "note", 1)
    return told + peer.told()


@case([(ERROR, 4009), 4009])
def a_sign_in_with_a_wrong_signature_ends_the_connection(stage: Stage) -> Any:
    peer = stage.connect()
    peer.send("pusher:signin", {"auth": f"{KEY}:{'0' * 64}", "user_data": '{"id": "ana"}'})
    return without_words(peer.told())


@case([(ERROR, 4009), 4009])
def a_users_connections_end_when_the_application_says_so(stage: Stage) -> Any:
    user_id = stage.name("user")
    peer = stage.connect()
    peer.send("pusher:signin", stage.client.authenticate_user(peer.socket_id, {"id": user_id}))
    peer.connection.frame_of("pusher:signin_success")
    stage.client.terminate_user_connections(user_id)
    return without_words(peer.told())


# The HTTP API


@case([(200, {}), [], [("headline", 1)]])
def an_event_spares_the_connection_it_names(stage: Stage) -> Any:
    news = stage.name("news")
    sender, other = stage.connect().join(news), stage.connect().join(news)
    event = {"name": "headline", "channels": [news], "data": "1", "socket_id": sender.socket_id}
    status, _ = stage.post("/events", event)
    return [(status, {}), sender.told(), other.told()]


@case([("first", 1), ("second", 2)])
def a_batch_arrives_in_order(stage: Stage) -> Any:
    news = stage.name("news")
    peer = stage.connect().join(news)
    batch = [
        {"channel": news, "name": name, "data": data}
        for name, data in (("first", 1), ("second", 2))
    ]
    stage.client.trigger_batch(batch)
    return peer.told()


EVENT = {"name": "e", "channels": ["news"], "data": "{}"}


@case([400, 400, 413, 400])
def an_event_that_breaks_a_limit_is_refused(stage: Stage) -> Any:
    wrong: list[dict[str, Any]] = [
        {"name": "x" * 201},
        {"channels": [f"news-{number}" for number in range(101)]},
        {"data": "x" * 200_000},
        {"name": None},
    ]
    return [stage.post("/events", {**EVENT, **change})[0] for change in wrong]


@case(400)
def a_batch_of_eleven_is_refused(stage: Stage) -> Any:
    event = {"name": "e", "channel": "news", "data": "{}"}
    return stage.post("/batch_events", {"batch": [event] * 11})[0]


@case(
    [401, 404, 401],
    soketi=[401, 404, 200],
    because="A key that is not the application's is worth a refusal.",
)
def a_request_that_is_not_the_applications_is_refused(stage: Stage) -> Any:
    wrong = stage.api.call("GET", "/channels", b"", {}, app_id=APP_ID, secret="other")
    key = stage.api.call("GET", "/channels", b"", {"auth_key": "other"}, app_id=APP_ID)
    other = stage.api.call("GET", "/channels", b"", {}, app_id="other")
    return [status(wrong), status(other), status(key)]


@case(401, soketi=200, because="Who has heard a request may not send it again for ever.")
def an_old_request_is_refused(stage: Stage) -> Any:
    return stage.get("/channels", auth_timestamp="1")[0]


@case([(200, {"occupied": True, "subscription_count": 2}), (200, {"users": [{"id": "ana"}]})])
def a_channel_is_described(stage: Stage) -> Any:
    room = stage.name("presence-room")
    for _ in range(2):
        stage.connect().join(room, {"user_id": "ana", "user_info": {}})
    code, about = stage.get(f"/channels/{room}", info="subscription_count")
    about.pop("user_count", None)  # which soketi tells without being asked
    return [(code, about), stage.get(f"/channels/{room}/users")]


@case(400)
def a_channel_without_users_has_none_to_list(stage: Stage) -> Any:
    return stage.get(f"/channels/{stage.name('news')}/users")[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.play.__name__)
def test_a_server_does_what_servers_do(stage: Stage, server: str, case: Case) -> None:
    expected = case.soketi if server == "soketi" else case.outcome
    assert case.play(stage) == expected, case.because
