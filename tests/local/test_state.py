"""The state, without a socket, a loop or a clock that ticks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from _flask_pusher.local import state as state_room
from _flask_pusher.local.state import (
    Credentials,
    Event,
    Happening,
    Limits,
    Member,
    Peer,
    RefusedError,
    State,
)

from .peers import sign


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        self.timers.append(Timer(self, self.now + seconds, callback))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.due <= self.now]:
            self.timers.remove(timer)
            timer.callback()


class Timer:
    def __init__(self, clock: Clock, due: float, callback: Callable[[], object]) -> None:
        self.clock = clock
        self.due = due
        self.callback = callback

    def cancel(self) -> None:
        self.clock.timers.remove(self)


class Observer:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.happenings: list[Happening] = []
        self.webhooks: list[dict[str, object]] = []

    def happened(self, happening: Happening) -> None:
        self.happenings.append(happening)

    def tell_application(self, event: dict[str, object]) -> None:
        self.webhooks.append(event)


class Listener(Peer):
    """Keeps the frames that it is sent, without their heads."""

    def __init__(self, socket_id: str) -> None:
        super().__init__(socket_id)
        self.frames: list[dict[str, Any]] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(json.loads(frame[frame.index(b"{") :]))

    @property
    def heard(self) -> list[str]:
        heard = [frame["event"] for frame in self.frames]
        self.frames.clear()
        return heard


class World:
    def __init__(self, **limits: Any) -> None:
        self.clock, self.observer = Clock(), Observer()
        self.state = State(self.clock, self.observer, Limits(**limits))
        self._count = 0

    def connect(self) -> Listener:
        self._count += 1
        peer = Listener(f"{self._count}.1")
        self.state.connect(peer, "here")
        return peer

    def subscribe(self, *channels: str) -> Listener:
        peer = self.connect()
        for name in channels:
            self.state.subscribe(peer, name)
        return peer

    def told(self) -> list[tuple[object, ...]]:
        told = [tuple(event.values()) for event in self.observer.webhooks]
        self.observer.webhooks.clear()
        return told


SUCCEEDED = "pusher_internal:subscription_succeeded"
COUNT = "pusher_internal:subscription_count"


def test_a_channel_is_there_while_somebody_is_subscribed() -> None:
    world = World()
    first, second = world.subscribe("news"), world.subscribe("news")
    assert world.told() == [
        ("channel_occupied", "news"),
        ("subscription_count", "news", 1),
        ("subscription_count", "news", 2),
    ]
    assert first.heard == [SUCCEEDED, COUNT, COUNT]
    world.state.disconnect(first)
    assert list(world.state.channels["news"].subscribers) == [second]
    world.state.unsubscribe(second, "news")
    assert world.state.channels == {}
    assert world.told() == [("subscription_count", "news", 1), ("subscription_count", "news", 0)]
    world.clock.advance(3)
    assert world.told() == [("channel_vacated", "news")]


def test_who_is_gone_is_forgotten_once() -> None:
    world = World()
    peer = world.subscribe("news")
    world.state.disconnect(peer)
    before = list(world.observer.happenings)
    world.state.disconnect(peer)
    assert world.observer.happenings == before
    assert (world.state.peers, world.state.channels, world.state.users) == ({}, {}, {})


def test_an_event_reaches_all_but_the_connection_it_spares() -> None:
    world = World()
    first, second = world.subscribe("news"), world.subscribe("news", "sport")
    first.frames.clear()
    second.frames.clear()
    world.state.trigger(Event("e", ["news", "sport", "nobody"], "{}", first.socket_id))
    assert first.frames == []
    assert second.frames == [
        {"event": "e", "data": "{}", "channel": "news"},
        {"event": "e", "data": "{}", "channel": "sport"},
    ]
    happened = world.observer.happenings[-1]
    assert happened == Happening("event", "e to nobody (0 subscribers)", None, "nobody", "e", "{}")


def test_a_client_event_travels_as_it_came_and_is_told_as_text() -> None:
    world = World()
    sender, other = world.subscribe("private-a"), world.subscribe("private-a")
    world.told()
    other.frames.clear()
    world.state.relay(sender, "private-a", "client-x", {"data": {"n": 1}})
    world.state.relay(sender, "private-a", "client-x", {})
    assert other.frames == [
        {"event": "client-x", "data": {"n": 1}, "channel": "private-a"},
        {"event": "client-x", "channel": "private-a"},
    ]
    assert world.told() == [
        ("client_event", "private-a", "client-x", '{"n":1}', sender.socket_id),
        ("client_event", "private-a", "client-x", "null", sender.socket_id),
    ]


def test_a_member_has_the_info_of_the_first_connection() -> None:
    world = World()
    tab, other_tab = world.connect(), world.connect()
    world.state.subscribe(tab, "presence-a", Member("ana", {"n": 1}))
    world.state.subscribe(other_tab, "presence-a", Member("ana", {"n": 2}))
    assert world.state.channels["presence-a"].members == {"ana": {"n": 1}}
    assert [name for name, *_ in world.told()] == ["channel_occupied", "member_added"]
    world.state.disconnect(tab)
    assert world.told() == []
    world.state.disconnect(other_tab)
    world.clock.advance(3)
    assert [name for name, *_ in world.told()] == ["member_removed", "channel_vacated"]


@pytest.mark.parametrize(
    ("limits", "member", "reason"),
    [
        ({"members_per_channel": 1}, Member("ben", None), "presence-a has 1 members"),
        (
            {"user_info_bytes": 9},
            Member("ben", {"n": "é"}),
            "user_info of ben is 10 bytes, over 9",
        ),
    ],
)
def test_a_member_that_breaks_a_limit_leaves_no_trace(
    limits: dict[str, int], member: Member, reason: str
) -> None:
    world = World(**limits)
    world.state.subscribe(world.connect(), "presence-a", Member("ana", None))
    world.told()
    late = world.connect()
    with pytest.raises(RefusedError, match=reason) as refused:
        world.state.subscribe(late, "presence-a", member)
    assert refused.value.kind == "LimitReached"
    assert (late.channels, late.frames, world.told()) == ({}, [], [])


def test_a_limit_of_nobody_lets_nobody_in() -> None:
    world = World(members_per_channel=0)
    with pytest.raises(RefusedError, match="presence-a has 0 members"):
        world.state.subscribe(world.connect(), "presence-a", Member("ana", None))


def test_a_member_without_info_has_none_that_is_too_long() -> None:
    world = World(user_info_bytes=0)
    world.state.subscribe(world.connect(), "presence-a", Member("ana", None))
    assert list(world.state.channels["presence-a"].members) == ["ana"]


def test_a_large_channel_hears_its_count_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_room, "SMALL_CHANNEL", 2)
    world = World()
    first = world.subscribe("news")

    def counts() -> list[int]:
        frames = [frame for frame in first.frames if frame["event"] == COUNT]
        first.frames.clear()
        return [json.loads(frame["data"])["subscription_count"] for frame in frames]

    others = [world.subscribe("news") for _ in range(4)]
    assert counts() == [1, 2, 3]
    world.clock.advance(5)
    assert counts() == [5]
    world.clock.advance(5)
    assert (counts(), world.clock.timers) == ([], [])
    for other in others:
        world.state.disconnect(other)
    assert counts() == [4]
    world.clock.advance(5)
    assert counts() == [1]


def test_a_large_channel_that_everyone_leaves_leaves_no_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_room, "SMALL_CHANNEL", 1)
    world = World()
    peers = [world.subscribe("news") for _ in range(3)]
    assert len(world.clock.timers) == 1
    for peer in peers:
        world.state.disconnect(peer)
    world.clock.advance(3)  # and it is told that the channel is vacated
    assert world.clock.timers == []


def test_a_cached_event_expires() -> None:
    world = World(cache_seconds=60)
    world.state.trigger(Event("goal", ["cache-a"], "1"))
    world.clock.advance(59)
    assert world.state.cached("cache-a") == {"data": "1", "ttl": 1}
    assert world.subscribe("cache-a").heard == [SUCCEEDED, COUNT, "goal"]
    world.clock.advance(1)
    assert world.state.cached("cache-a") is None
    world.told()
    late = world.subscribe("cache-a")
    assert late.frames[-1] == {"event": "pusher:cache_miss", "channel": "cache-a"}
    assert ("cache_miss", "cache-a") in world.told()


def test_who_watches_hears_of_the_first_and_the_last_connection() -> None:
    world = World()
    watcher, tab, other_tab = world.connect(), world.connect(), world.connect()
    world.state.sign_in(watcher, Member("ana", None), ["ben", "ben", "ana"])
    world.state.tell_watched(watcher)
    for peer in (tab, other_tab):
        world.state.sign_in(peer, Member("ben", None), [])
    for peer in (tab, other_tab):
        world.state.disconnect(peer)
    assert [json.loads(frame["data"])["events"] for frame in watcher.frames] == [
        [{"name": "online", "user_ids": ["ana"]}, {"name": "offline", "user_ids": ["ben"]}],
        [{"name": "online", "user_ids": ["ben"]}],
        [{"name": "offline", "user_ids": ["ben"]}],
    ]
    world.state.disconnect(watcher)
    assert (world.state.users, world.state._watchers) == ({}, {})


def test_the_channels_of_users_are_none_of_webhooks() -> None:
    world = World()
    peer = world.subscribe("#server-to-user-ana")
    world.state.disconnect(peer)
    world.clock.advance(3)
    assert world.told() == []


@pytest.mark.parametrize("length", [164, 165])
def test_a_long_name_is_warned_of(length: int) -> None:
    world = World()
    world.subscribe("x" * length)
    world.subscribe("#server-to-user-" + "x" * 160)
    warnings = [each for each in world.observer.happenings if each.kind == "warning"]
    assert len(warnings) == (length > 164)


def test_credentials_sign_and_verify_as_channels_does() -> None:
    credentials = Credentials("3", "a-key", "a-secret")
    assert credentials.sign("1.1:private-a") == sign("1.1:private-a")
    assert credentials.verify_token("1.1:private-a", f"a-key:{sign('1.1:private-a')}")
    assert not credentials.verify_token("1.1:private-a", f"b-key:{sign('1.1:private-a')}")
    assert not credentials.verify_token("1.1:private-b", f"a-key:{sign('1.1:private-a')}")
    assert not credentials.verify("\ud800", "é\ud800")
