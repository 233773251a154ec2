"""The page itself: giving applications the extension, and what its own mistakes are answered by."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_type_hints

import pytest
from flask import Flask, current_app
from flask.testing import FlaskClient
from pusher import Pusher as OfficialClient

import flask_pusher
from flask_pusher import Client, Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

FORM = {"socket_id": "1.1", "channel_name": "private-news"}


def test_an_application_gets_a_configured_client(app: Flask) -> None:
    pusher = Pusher(app)
    with app.app_context():
        assert pusher.client is app.extensions["pusher"]
        assert isinstance(pusher.client, Client)
        assert isinstance(pusher.client, OfficialClient)
        assert pusher.client.key == "a-key"


def test_handlers_may_be_declared_before_an_application_is_there(make_app: MakeApp) -> None:
    pusher = Pusher()

    @pusher.auth
    def may_subscribe(channel_name: str, socket_id: str) -> bool:
        return True

    app = make_app(pusher)
    assert app.test_client().post("/pusher/auth", data=FORM).status_code == 200


def test_handlers_may_be_declared_after_the_first_request(
    pusher: Pusher, browser: FlaskClient
) -> None:
    assert browser.post("/pusher/auth", data=FORM).status_code == 403
    pusher.auth(lambda channel_name, socket_id: True)
    assert browser.post("/pusher/auth", data=FORM).status_code == 200


def test_decorators_return_the_function_unchanged(pusher: Pusher) -> None:
    def handler(*args: object, **variables: object) -> Any: ...

    assert pusher.auth(handler) is handler
    assert pusher.auth("private-<x>")(handler) is handler
    assert pusher.channel_data(handler) is handler
    assert pusher.channel_data("presence-<x>")(handler) is handler
    assert pusher.user_auth(handler) is handler
    assert pusher.webhooks.channel_existence(handler) is handler
    assert pusher.webhooks.presence(handler) is handler
    assert pusher.webhooks.client(handler) is handler
    assert pusher.webhooks.cache(handler) is handler
    assert pusher.webhooks.subscription_count(handler) is handler
    assert pusher.webhooks.event("member_added")(handler) is handler


def test_one_extension_serves_several_applications_with_their_own_settings(
    make_app: MakeApp,
) -> None:
    pusher = Pusher()
    pusher.auth(lambda channel_name, socket_id: True)
    first = make_app(pusher, PUSHER_KEY="first")
    second = make_app(pusher, PUSHER_KEY="second", PUSHER_AUTH="/other")
    with first.app_context():
        assert pusher.client.key == "first"
    with second.app_context():
        assert pusher.client.key == "second"
    answer = first.test_client().post("/pusher/auth", data=FORM).get_json()
    assert answer["auth"].startswith("first:")
    answer = second.test_client().post("/pusher/other", data=FORM).get_json()
    assert answer["auth"].startswith("second:")
    assert second.test_client().post("/pusher/auth", data=FORM).status_code == 404


def test_a_factory_that_makes_its_pusher_too_may_be_called_again(make_app: MakeApp) -> None:
    def create_app(*names: str) -> Flask:
        app = make_app(pusher := Pusher())

        @pusher.auth("private-<name>")
        def may_subscribe(channel_name: str, socket_id: str, name: str) -> bool:
            return name in names

        return app

    statuses = [
        app.test_client().post("/pusher/auth", data=FORM).status_code
        for app in (create_app("news"), create_app())
    ]
    assert statuses == [200, 403]


def test_init_app_can_be_repeated_after_a_setting_was_mended(app: Flask) -> None:
    pusher = Pusher()
    app.config["PUSHER_PORT"] = "http"
    with pytest.raises(ValueError, match="PUSHER_PORT"):
        pusher.init_app(app)
    app.config["PUSHER_PORT"] = "8080"
    pusher.init_app(app)
    assert app.extensions["pusher"].port == 8080


def test_the_client_outside_an_application_is_flasks_own_error(pusher: Pusher) -> None:
    with pytest.raises(RuntimeError, match="outside of application context"):
        _ = pusher.client


def test_neither_client_nor_extension_shows_the_secret(app: Flask, pusher: Pusher) -> None:
    assert "a-secret" not in f"{app.extensions!r} {pusher!r} {app.extensions['pusher']}"


def test_the_commands_are_imported_by_who_asks_for_them() -> None:
    code = "import sys, flask_pusher; print('_flask_pusher.commands' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert answer.stdout == b"False\n"


def test_it_triggers_by_the_current_applications_client(app: Flask, api: Any) -> None:
    pusher = Pusher(app)
    api.answers.append((200, '{"channels": {"news": {"subscription_count": 3}}}'))
    with app.app_context():
        answer = pusher.trigger("news", "flash", {"n": 1}, "1.2", info=["subscription_count"])
    assert answer == {"channels": {"news": {"subscription_count": 3}}}
    assert api.calls[0].body["socket_id"] == "1.2"
    assert api.events == [("news", "flash", {"n": 1})]


def test_a_proxy_of_the_application_is_the_application(app: Flask, api: Any) -> None:
    pusher = Pusher()
    with app.app_context():
        pusher.init_app(current_app)

    @app.post("/publish")
    def publish() -> str:
        pusher.defer("news", "flash", {})
        return ""

    for times in (1, 2):
        app.test_client().post("/publish").close()
        api.until(lambda times=times: len(api.events) == times)
    assert app.extensions["flask_pusher"].outboxes.app is app


def test_an_applications_own_command_of_that_name_stays(app: Flask) -> None:
    @app.cli.command("pusher")
    def own() -> None:
        print("its own")

    Pusher(app)
    assert app.test_cli_runner().invoke(args=["pusher"]).output == "its own\n"


def public_functions() -> dict[str, Any]:
    """Each public function, class and method, by its name."""
    found: dict[str, Any] = {"Pusher": Pusher.__init__, "Client": Client.__init__}
    for name in flask_pusher.__all__:
        thing = getattr(flask_pusher, name)
        found.setdefault(name, thing)
        for inner, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not inner.startswith("_"):
                found[f"{name}.{inner}"] = getattr(member, "fget", member)
    ours = ("flask_pusher", "_flask_pusher")
    return {
        name: thing
        for name, thing in found.items()
        if inspect.isfunction(thing) and thing.__module__.startswith(ours)
    }


@pytest.mark.skipif(sys.version_info < (3, 10), reason="str | None cannot be asked for in 3.9")
@pytest.mark.parametrize("name", public_functions())
def test_the_types_of_every_public_name_can_be_asked_for(name: str) -> None:
    get_type_hints(public_functions()[name])


USES: list[Callable[[Pusher], Any]] = [
    lambda pusher: pusher.client,
    lambda pusher: pusher.trigger("news", "flash", {}),
    lambda pusher: pusher.defer("news", "flash", {}),
    lambda pusher: pusher.sign_webhook(""),
    lambda pusher: pusher.publish([]),
    lambda pusher: pusher.record_events().__enter__(),
]


class TestMistakes:
    @pytest.mark.parametrize("arguments", [("a-key",), ("1", "a-key"), (5,)])
    def test_credentials_as_arguments_are_told_where_they_go(
        self, arguments: tuple[Any, ...]
    ) -> None:
        with pytest.raises(TypeError, match=r"takes the application, Pusher\(app\)") as raised:
            Pusher(*arguments)
        assert "keys of app.config, such as PUSHER_KEY" in str(raised.value)
        assert "a-key" not in str(raised.value)

    def test_what_is_no_flask_application_is_told_by_its_type(self) -> None:
        class Quart:
            extensions: dict[str, Any]

        for give in (Pusher, Pusher().init_app):
            with pytest.raises(TypeError, match=r"of type Quart, which is no flask\.Flask"):
                give(Quart())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="of type NoneType"):
            Pusher().init_app(None)  # type: ignore[arg-type]

    def test_an_argument_that_it_does_not_have_is_pythons_own_error(self, app: Flask) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'url_prefx'"):
            Pusher(app, url_prefx="/x")  # type: ignore[call-arg]
        assert "pusher" not in app.extensions

    @pytest.mark.parametrize(
        "prefix", ["x", "/<lang>/pusher", "/x?y", "/a b", "/x#", "/a/../b", "/.", "/a\\b", "/\0"]
    )
    def test_a_prefix_that_is_no_path_is_an_error_at_the_call(self, prefix: str) -> None:
        with pytest.raises(
            ValueError, match="url_prefix should start with a slash, and be a path"
        ):
            Pusher(url_prefix=prefix)

    @pytest.mark.parametrize("use", USES)
    def test_an_application_of_another_is_told(
        self, app: Flask, pusher: Pusher, use: Callable[[Pusher], Any]
    ) -> None:
        told = f"'{app.name}' was given another Pusher: use that one"
        with app.app_context(), pytest.raises(RuntimeError, match=told):
            use(Pusher())

    @pytest.mark.parametrize("use", USES)
    def test_an_application_without_init_app_is_told(self, use: Callable[[Pusher], Any]) -> None:
        told = r"'bare' has no Pusher: call init_app\(app\)"
        with Flask("bare").app_context(), pytest.raises(RuntimeError, match=told):
            use(Pusher())
