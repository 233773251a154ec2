"""The client as an object: its configuration, its copies, and tests that patch it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from flask import Flask

from flask_pusher import Client, NoAnswer, Pusher


@pytest.fixture
def pusher(encrypting: Pusher) -> Pusher:
    return encrypting


ATTRIBUTES = [
    "app_id",
    "key",
    "secret",
    "host",
    "port",
    "ssl",
    "scheme",
    "path",
    "timeout",
    "http",
]


@pytest.mark.parametrize("name", [*ATTRIBUTES, "can_encrypt"])
def test_its_configuration_can_be_read_and_not_assigned(client: Client, name: str) -> None:
    before = getattr(client, name)
    with pytest.raises(AttributeError):
        setattr(client, name, "other")
    assert getattr(client, name) == before


def test_what_it_does_not_have_is_an_attribute_error(client: Client) -> None:
    assert not hasattr(client, "no_such_thing")


@pytest.mark.parametrize("name", ["defer", "record_events", "auth", "webhooks"])
def test_a_name_that_the_extension_has_is_told(client: Client, name: str) -> None:
    with pytest.raises(AttributeError, match=f"the extension has: pusher.{name}"):
        getattr(client, name)


def test_an_attribute_error_inside_of_a_property_is_the_one_that_is_seen() -> None:
    class Own(Client):
        @property
        def region(self) -> str:
            return self.host.no_such_method()  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(AttributeError, match="no_such_method"):
        _ = Own("1", "a-key", "a-secret").region


def test_an_assigned_address_is_published_to(client: Client, api: Any) -> None:
    before = client.address
    client.address = ("127.0.0.1", 1, False)
    with pytest.raises(NoAnswer, match=r"^http://127\.0\.0\.1:1 gave no answer"):
        client.trigger("news", "flash", {})
    client.address = before
    client.trigger("news", "flash", {})
    assert len(api.calls) == 1


def shallow(client: Client) -> Client:
    return copy.copy(client)


def deep(client: Client) -> Client:
    return copy.deepcopy(client)


def pickled(client: Client) -> Any:
    return pickle.loads(pickle.dumps(client))  # noqa: S301 - as multiprocessing does


@pytest.mark.parametrize("copied", [shallow, deep, pickled])
@pytest.mark.parametrize("was_used", [False, True])
def test_a_copy_publishes(
    client: Client, api: Any, copied: Callable[[Client], Client], was_used: bool
) -> None:
    if was_used:
        client.trigger("news", "flash", {})
        api.calls.clear()
    other = copied(client)
    assert (other.key, other.secret, other.address) == ("a-key", "a-secret", client.address)
    other.trigger("news", "flash", {"n": Decimal("1.5")})
    assert api.events == [("news", "flash", {"n": "1.5"})]


@pytest.mark.parametrize("copied", [deep, pickled])
def test_a_copys_address_is_its_own(client: Client, copied: Callable[[Client], Client]) -> None:
    before = client.address
    copied(client).address = ("other.example", 1, True)
    assert client.address == before


def test_a_copy_is_recorded_with_the_client(
    app: Flask, pusher: Pusher, client: Client, api: Any
) -> None:
    with app.app_context(), pusher.record_events() as events:
        copy.copy(client).trigger("news", "flash", {})
    assert len(events) == 1
    assert api.calls == []


class TestMadeByHand:
    @pytest.mark.parametrize("app_id", [7, "", "a/b", "a b", None])
    def test_an_app_id_that_cannot_be_is_refused(self, app_id: Any) -> None:
        with pytest.raises(ValueError, match="An app's id is text of A-Z a-z 0-9 _ -; this is"):
            Client(app_id, "a-key", "a-secret")

    def test_options_that_requests_does_not_have_are_refused(self) -> None:
        with pytest.raises(TypeError, match="'pool' is none of auth, cert, cookies, hooks, prox"):
            Client("1", "a-key", "a-secret", pool=3)

    def test_a_backend_of_ones_own_is_made_once(self) -> None:
        made: list[Any] = []
        Client("1", "a-key", "a-secret", backend=made.append)
        assert len(made) == 1

    def test_the_warning_of_a_deprecated_key_comes_once(self) -> None:
        with pytest.warns(UserWarning, match="deprecated") as told:
            Client("1", "a-key", "a-secret", encryption_master_key="k" * 32)
        assert len(told) == 1


class TestPatchedByTests:
    """As tests of applications for 3.0 do, which tests/test_drop_in.py has, and what is new."""

    def test_a_patched_trigger_takes_what_the_extension_triggers(
        self, app: Flask, pusher: Pusher, api: Any
    ) -> None:
        with app.app_context(), mock.patch("pusher.Pusher.trigger") as trigger:
            pusher.trigger("news", "flash", {"n": 1}, info=["user_count"])
        trigger.assert_called_once_with("news", "flash", {"n": 1})
        assert api.calls == []

    @pytest.mark.parametrize("method", ["send_to_user", "authenticate_user", "validate_webhook"])
    def test_each_other_method_can_be_patched(self, client: Client, method: str) -> None:
        arguments = {"authenticate_user": ("1.2", {"id": "7"})}.get(method, ("7", "b", "c"))
        with mock.patch(f"pusher.Pusher.{method}") as patched:
            getattr(client, method)(*arguments)
        patched.assert_called_once_with(*arguments)
