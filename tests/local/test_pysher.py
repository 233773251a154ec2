"""A client that others wrote."""

from __future__ import annotations

import logging
import queue

import pysher
import pytest

from _flask_pusher.local import LocalServer
from flask_pusher import Client

from .peers import KEY, SECRET


def end(server: LocalServer, peer: pysher.Pusher) -> None:
    """Let the server close: a pysher that closes may wait for what it has read already."""
    server.disconnect(4001)
    peer.connection.join(20)
    assert not peer.connection.is_alive()


def test_pysher_subscribes_and_receives(server: LocalServer, client: Client) -> None:
    heard: queue.Queue[tuple[str, str]] = queue.Queue()
    peer = pysher.Pusher(
        KEY,
        secret=SECRET,
        custom_host=server.host,
        port=server.port,
        secure=False,
        user_data={"user_id": "ana"},
        log_level=logging.WARNING,  # its thread may log its end when another test runs
    )

    def subscribe(_: str) -> None:
        for channel in ("news", "private-news", "presence-news"):
            subscription = peer.subscribe(channel)
            name = "pusher_internal:subscription_succeeded"
            subscription.bind(name, lambda data, channel=channel: heard.put((channel, data)))
            subscription.bind("e", lambda data: heard.put(("e", data)))

    peer.connection.bind("pusher:connection_established", subscribe)
    peer.connect()
    try:
        subscribed = dict(heard.get(timeout=20) for _ in range(3))
        assert set(subscribed) == {"news", "private-news", "presence-news"}
        assert '"count":1' in subscribed["presence-news"]
        for channel in subscribed:
            client.trigger(channel, "e", {"on": channel})
            assert heard.get(timeout=20) == ("e", f'{{"on": "{channel}"}}')
    finally:
        end(server, peer)


def test_pysher_is_refused_with_another_secret(
    server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    refused: queue.Queue[str] = queue.Queue()
    peer = pysher.Pusher(
        KEY,
        secret="other",
        custom_host=server.host,
        port=server.port,
        secure=False,
        log_level=logging.WARNING,
    )

    def subscribe(_: str) -> None:
        subscription = peer.subscribe("private-news")
        subscription.bind("pusher:subscription_error", refused.put)

    peer.connection.bind("pusher:connection_established", subscribe)
    peer.connect()
    try:
        assert "do both sides have the same secret?" in str(refused.get(timeout=20))
    finally:
        end(server, peer)
