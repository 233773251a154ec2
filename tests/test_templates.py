"""What templates get: the key, the options of ``new Pusher(...)``, and the page's scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, render_template_string
from jinja2 import DictLoader, StrictUndefined, UndefinedError
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client as Browser

from flask_pusher import Pusher

if TYPE_CHECKING:
    from tests.conftest import MakeApp

PAGE = "{{ pusher_options()|tojson }}"
PATIENCE = {"activityTimeout": 30_000, "pongTimeout": 6_000}
SELF_HOSTED = {"PUSHER_HOST": "ws.example", "PUSHER_PORT": "6001", "PUSHER_SSL": "false"}


@pytest.fixture
def options_of(make_app: MakeApp) -> Callable[..., Any]:
    """The options that a page of an application with these settings gives to pusher-js."""

    def options_of(**config: Any) -> Any:
        app = make_app(Pusher(), **config)
        with app.test_request_context():
            return json.loads(render_template_string(PAGE))

    return options_of


def test_the_key_is_in_every_template(app: Flask, pusher: Pusher) -> None:
    with app.test_request_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "a-key"


def test_a_template_that_does_not_ask_for_options_renders_outside_a_request(
    app: Flask, pusher: Pusher
) -> None:
    with app.app_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "a-key"


@pytest.mark.parametrize(
    ("config", "cluster"),
    [
        ({}, "mt1"),
        ({"PUSHER_CLUSTER": "eu"}, "eu"),
        ({"PUSHER_HOST": "api-us2.pusher.com"}, "us2"),
        ({"PUSHER_HOST": "api.pusherapp.com", "PUSHER_PORT": "80"}, "mt1"),
    ],
)
def test_the_hosted_service_is_told_by_its_cluster(
    options_of: Callable[..., Any], config: dict[str, str], cluster: str
) -> None:
    assert options_of(**config) == {
        "cluster": cluster,
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {}},
        "userAuthentication": {"endpoint": "/pusher/user-auth", "headers": {}},
        **PATIENCE,
    }


@pytest.mark.parametrize(("ssl", "tls"), [("false", False), ("true", True)])
def test_a_server_of_ones_own_is_told_by_its_address(
    options_of: Callable[..., Any], ssl: str, tls: bool
) -> None:
    assert options_of(**{**SELF_HOSTED, "PUSHER_SSL": ssl}) == {
        "cluster": "mt1",
        "wsHost": "ws.example",
        "wsPort": 6001,
        "wssPort": 6001,
        "forceTLS": tls,
        "enabledTransports": ["ws", "wss"],
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {}},
        "userAuthentication": {"endpoint": "/pusher/user-auth", "headers": {}},
        **PATIENCE,
    }


def test_a_changed_address_is_followed(app: Flask, pusher: Pusher) -> None:
    app.extensions["pusher"].address = ("127.0.0.1", 7001, False)
    with app.test_request_context():
        options = json.loads(render_template_string(PAGE))
    assert (options["wsHost"], options["wsPort"], options["forceTLS"]) == (
        "127.0.0.1",
        7001,
        False,
    )


def test_changed_routes_and_prefix_are_followed(make_app: MakeApp) -> None:
    app = make_app(PUSHER_AUTH="/subscribe", PUSHER_USER_AUTH="/sign-in")
    Pusher(app, url_prefix="/live")
    with app.test_request_context():
        options = json.loads(render_template_string(PAGE))
    assert options["channelAuthorization"]["endpoint"] == "/live/subscribe"
    assert options["userAuthentication"]["endpoint"] == "/live/sign-in"


def test_an_application_below_a_path_is_followed(app: Flask, pusher: Pusher) -> None:
    app.route("/")(lambda: render_template_string(PAGE))
    mounted = DispatcherMiddleware(Flask("outer"), {"/shop": app})
    options = Browser(mounted).get("/shop/").get_json(force=True)
    assert options["channelAuthorization"]["endpoint"] == "/shop/pusher/auth"


def test_client_options_are_merged_over_the_others(options_of: Callable[..., Any]) -> None:
    options = options_of(
        PUSHER_CLUSTER="eu",
        PUSHER_CLIENT_OPTIONS={
            "cluster": "us2",
            "activityTimeout": 1000,
            "channelAuthorization": {"headers": {"X-CSRFToken": "t"}},
            "userAuthentication": None,
        },
    )
    assert options == {
        "cluster": "us2",
        "activityTimeout": 1000,
        "pongTimeout": 6_000,
        "channelAuthorization": {"endpoint": "/pusher/auth", "headers": {"X-CSRFToken": "t"}},
        "userAuthentication": None,
    }


def test_a_servers_path_is_told_to_the_browser_too(options_of: Callable[..., Any]) -> None:
    assert options_of(**SELF_HOSTED, PUSHER_PATH="/channels")["wsPath"] == "/channels"
    assert "wsPath" not in options_of(**SELF_HOSTED)
    assert "wsPath" not in options_of(PUSHER_CLUSTER="eu", PUSHER_PATH="/channels")


def test_an_ipv6_address_keeps_its_brackets(options_of: Callable[..., Any]) -> None:
    assert options_of(PUSHER_HOST="::1")["wsHost"] == "[::1]"


@pytest.mark.parametrize("how", ["import", "from"])
def test_a_macro_that_is_imported_without_context_knows_them(
    app: Flask, pusher: Pusher, how: str
) -> None:
    macro = "{% macro head() %}{{ PUSHER_KEY }} {{ pusher_options()|tojson }}{% endmacro %}"
    app.jinja_loader = DictLoader({"macros.html": macro})
    pages = {
        "import": "{% import 'macros.html' as macros %}{{ macros.head() }}",
        "from": "{% from 'macros.html' import head %}{{ head() }}",
    }
    with app.test_request_context():
        key, _, options = render_template_string(pages[how]).partition(" ")
    assert key == "a-key"
    assert json.loads(options)["channelAuthorization"]["endpoint"] == "/pusher/auth"


def test_an_applications_own_variable_of_the_name_stays(app: Flask, pusher: Pusher) -> None:
    app.context_processor(lambda: {"PUSHER_KEY": "own"})
    with app.test_request_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "own"


def test_a_page_may_change_its_options_for_itself(app: Flask, pusher: Pusher) -> None:
    page = "{% set _ = pusher_options().update(cluster='eu') %}" + PAGE
    with app.test_request_context():
        assert json.loads(render_template_string(page))["cluster"] == "mt1"


# -- pusher_scripts() -----------------------------------------------------------------------------

CDN = "https://cdn.jsdelivr.net/npm/"


class Scripts(HTMLParser):
    """The attributes of the scripts of a page, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "script"
        self.found.append(dict(attrs))


@pytest.fixture
def scripts_of(make_app: MakeApp) -> Callable[..., list[dict[str, str | None]]]:
    """The scripts that a page loads whose head calls this."""

    def scripts_of(call: str = "pusher_scripts()", **config: Any) -> list[dict[str, str | None]]:
        app = make_app(Pusher(), **config)
        with app.test_request_context():
            return Scripts(render_template_string(f"{{{{ {call} }}}}")).found

    return scripts_of


ScriptsOf = Callable[..., list[dict[str, Any]]]


def test_a_page_loads_pusher_js_then_idiomorph_then_ours(scripts_of: ScriptsOf) -> None:
    pusher_js, idiomorph, ours = scripts_of()
    assert pusher_js["src"] == f"{CDN}pusher-js@8.6.0/dist/web/pusher.min.js"
    assert idiomorph["src"] == f"{CDN}idiomorph@0.8.0/dist/idiomorph.min.js"
    assert ours["src"].startswith("/pusher/page.js?v=")
    for script in (pusher_js, idiomorph):
        assert script["integrity"].startswith("sha384-")
        assert script["crossorigin"] == "anonymous"
    for script in (pusher_js, idiomorph, ours):
        assert script["data-turbo-track"] == "reload"
        assert "defer" in script
        assert "nonce" not in script


def test_our_script_is_told_the_key_and_the_options(scripts_of: ScriptsOf) -> None:
    headers = {"X-Odd": "\"'><script>&amp;"}
    ours = scripts_of(
        PUSHER_CLUSTER="eu", PUSHER_CLIENT_OPTIONS={"channelAuthorization": {"headers": headers}}
    )[-1]
    assert ours["data-key"] == "a-key"
    options = json.loads(ours["data-options"])
    assert options["cluster"] == "eu"
    assert options["channelAuthorization"] == {"endpoint": "/pusher/auth", "headers": headers}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(
            {"PUSHER_ENCRYPTION_MASTER_KEY": b"m" * 32},
            marks=pytest.mark.filterwarnings("ignore:.*is deprecated:UserWarning"),
        ),
        {"PUSHER_ENCRYPTION_MASTER_KEY_BASE64": "bW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW0="},
    ],
)
def test_with_a_master_key_it_is_the_build_with_encryption(
    scripts_of: ScriptsOf, settings: dict[str, Any]
) -> None:
    pusher_js = scripts_of(**settings)[0]
    assert pusher_js["src"] == f"{CDN}pusher-js@8.6.0/dist/web/pusher-with-encryption.min.js"


def test_a_page_may_leave_idiomorph_out(scripts_of: ScriptsOf) -> None:
    assert [
        script["src"].partition("?")[0] for script in scripts_of("pusher_scripts(morph=false)")
    ] == [
        f"{CDN}pusher-js@8.6.0/dist/web/pusher.min.js",
        "/pusher/page.js",
    ]


def test_each_script_has_the_nonce(scripts_of: ScriptsOf) -> None:
    found = scripts_of("pusher_scripts(nonce='\"r4nd0m')")
    assert [script["nonce"] for script in found] == ['"r4nd0m'] * 3


def test_copies_of_ones_own_are_loaded_in_place_of_the_cdns(scripts_of: ScriptsOf) -> None:
    pusher_js, idiomorph, _ = scripts_of(
        PUSHER_JS_URL="/static/pusher.min.js", PUSHER_IDIOMORPH_URL="https://cdn.example/morph.js"
    )
    assert pusher_js["src"] == "/static/pusher.min.js"
    assert idiomorph["src"] == "https://cdn.example/morph.js"
    assert "integrity" not in pusher_js
    assert "crossorigin" not in idiomorph


def test_with_empty_addresses_the_page_loads_its_own(scripts_of: ScriptsOf) -> None:
    (ours,) = scripts_of(PUSHER_JS_URL="", PUSHER_IDIOMORPH_URL="")
    assert ours["src"].startswith("/pusher/page.js")


@pytest.mark.parametrize("key", ["PUSHER_JS_URL", "PUSHER_IDIOMORPH_URL"])
@pytest.mark.parametrize("value", [False, "pusher.js", "javascript:alert()", "https://a b", 7])
def test_what_is_no_address_of_a_script_is_refused(
    make_app: MakeApp, key: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{key} should be a script's https"):
        make_app(Pusher(), **{key: value})


# -- Nothing of Jinja is settled ------------------------------------------------------------------


@pytest.mark.parametrize("key", ["TEMPLATES_AUTO_RELOAD", "DEBUG"])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_an_application_sets_after_init_app_still_counts(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, key: str, in_place: bool
) -> None:
    app = make_app(Pusher())
    if in_place:
        monkeypatch.setitem(app.jinja_options, "undefined", StrictUndefined)
    else:
        app.jinja_options = {**app.jinja_options, "undefined": StrictUndefined}
    app.config[key] = True
    with app.test_request_context():
        assert render_template_string("{{ PUSHER_KEY }}") == "a-key"
        with pytest.raises(UndefinedError):
            render_template_string("{{ nothing_of_this_name }}")
    assert app.jinja_env.auto_reload


def test_an_environment_that_was_made_before_has_them_too(app: Flask) -> None:
    app.add_template_global(len, "own")
    Pusher(app)
    with app.test_request_context():
        assert render_template_string("{{ own(PUSHER_KEY) }}") == "5"
