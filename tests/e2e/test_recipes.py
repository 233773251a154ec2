"""The recipes for pages that are built otherwise do what the documentation says of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    render_template,
    render_template_string,
    request,
)
from flask_wtf import CSRFProtect
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from flask_pusher import Pusher

from . import WAIT_SECONDS
from .conftest import RECIPES, NewTab, OpenPage, Serve
from .pages import Page
from .servers import Site
from .tools import Node


class TestEcho:
    """On a page that has a CSRF token, in an application that asks for it."""

    @pytest.fixture
    def pusher(self, app: Flask, serve: Serve) -> Pusher:
        app.static_folder = str(RECIPES)
        app.register_blueprint(Blueprint("recipes", __name__, template_folder=str(RECIPES)))
        app.add_url_rule("/", view_func=lambda: render_template("echo_page.html"))
        CSRFProtect(app)
        pusher = Pusher(app)
        pusher.auth(lambda channel_name, socket_id: True)
        pusher.channel_data(lambda channel_name, socket_id: {"name": "Ana"})
        pusher.user_auth(lambda socket_id: {"id": "ana"})
        serve(app)
        return pusher

    @pytest.fixture
    def tab(self, pusher: Pusher, new_tab: NewTab, site: Site) -> Tab:
        tab = new_tab()
        tab.goto(site.url)
        tab.wait_for_function("echo.connector.pusher.channel('private-orders').subscribed")
        return tab

    def test_the_application_refuses_who_has_no_token(self, pusher: Pusher, app: Flask) -> None:
        form = {"socket_id": "1.2", "channel_name": "private-orders"}
        answer = app.test_client().post("/pusher/auth", data=form)
        assert answer.status_code == 400
        assert "CSRF" in answer.text

    def test_it_joins_private_and_presence_channels(
        self, pusher: Pusher, app: Flask, tab: Tab
    ) -> None:
        with app.app_context():
            pusher.client.trigger("private-orders", "changed", {"name": "tea", "state": "served"})
        expect(tab.get_by_role("listitem")).to_have_text("tea: served")

        here = tab.evaluate(
            "new Promise((resolve, reject) => echo.join('room').here(resolve).error(reject))"
        )
        assert here == [{"name": "Ana"}]

    def test_it_signs_its_user_in(self, tab: Tab) -> None:
        tab.evaluate("echo.connector.signin()")
        tab.wait_for_function("echo.connector.pusher.user.user_data?.id === 'ana'")

    def test_it_sends_its_bearer_token(self, tab: Tab) -> None:
        with (
            tab.expect_request("**/pusher/auth") as authorisation,
            tab.expect_request("**/pusher/user-auth") as authentication,
        ):
            tab.evaluate(
                """() => {
                    const other = new Echo.default({ ...echo.options, bearerToken: "of-ana" });
                    other.private("bills");
                    other.connector.signin();
                }"""
            )

        for asked in (authorisation, authentication):
            assert asked.value.headers["authorization"] == "Bearer of-ana"


@pytest.mark.parametrize("recipe", ["echo_react.jsx", "echo_vue.js"])
class TestEchoHooks:
    """Echo in a framework, bundled, in an application that asks for a CSRF token."""

    @pytest.fixture
    def pusher(
        self,
        app: Flask,
        serve: Serve,
        recipe: str,
        node: Node,
        packages: Path,
        tmp_path: Path,
    ) -> Pusher:
        bundle(node, packages, RECIPES / recipe, tmp_path / "orders.js")
        app.static_folder = str(tmp_path)
        app.register_blueprint(Blueprint("recipes", __name__, template_folder=str(RECIPES)))
        app.add_url_rule("/", view_func=lambda: render_template("echo_app.html"))
        CSRFProtect(app)
        pusher = Pusher(app)
        pusher.auth("private-orders")(lambda channel_name, socket_id: True)
        serve(app)
        return pusher

    def test_a_component_hears_the_events_of_a_private_channel(
        self, pusher: Pusher, app: Flask, new_tab: NewTab, site: Site
    ) -> None:
        tab = new_tab()
        tab.goto(site.url)
        with app.app_context():
            wait_until(lambda: pusher.client.channel_info("private-orders")["occupied"])
            for name in ("tea", "cake"):
                pusher.trigger("private-orders", "changed", {"name": name, "state": "served"})
        expect(tab.get_by_role("listitem")).to_have_text(["tea: served", "cake: served"])


def bundle(node: Node, packages: Path, source: Path, target: Path) -> None:
    """Make one script of a recipe and of npm's packages, as the developer of a page would."""
    esbuild = [*node.node, str(packages / "esbuild/bin/esbuild"), "--log-level=error"]
    subprocess.run(
        [*esbuild, str(source), "--bundle", "--jsx=automatic", f"--outfile={target}"],
        check=True,
        env={**os.environ, "NODE_PATH": str(packages)},
        timeout=60,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)


class TestSinglePageApplication:
    """It starts from JSON, and its users have access tokens."""

    @pytest.fixture
    def tokens(self) -> set[str]:
        """Those that are valid."""
        return {"first"}

    @pytest.fixture
    def page(self, app: Flask, serve: Serve, open_page: OpenPage, tokens: set[str]) -> Page:
        pusher = Pusher(app)

        @app.get("/pusher.json")
        def pusher_settings() -> Response:
            text = '{"key": {{ PUSHER_KEY|tojson }}, "options": {{ pusher_options()|tojson }}}'
            return Response(render_template_string(text), mimetype="application/json")

        def has_token() -> bool:
            return request.headers.get("Authorization", "")[len("Bearer ") :] in tokens

        pusher.auth(lambda channel_name, socket_id: has_token())
        pusher.user_auth(lambda socket_id: {"id": "ana"} if has_token() else None)
        serve(app)
        page = open_page("/spa.html")
        page.run(
            """async () => {
                globalThis.token = "first";
                globalThis.pusher = await connect(() => token);
            }"""
        )
        return page

    def test_it_subscribes_and_signs_in(self, page: Page) -> None:
        page.subscribe("private-orders")
        assert page.has_joined("private-orders")
        page.run("signIn()")
        page.wait_until("pusher.user.user_data?.id === 'ana'")

    def test_a_token_that_was_renewed_is_the_one_that_counts(
        self, page: Page, tokens: set[str]
    ) -> None:
        page.subscribe("private-orders")
        tokens.clear()
        page.subscribe("private-bills")
        assert not page.has_joined("private-bills")

        tokens.add("second")
        page.run("globalThis.token = 'second'")
        page.subscribe("private-letters")

        assert page.has_joined("private-letters")

    def test_an_application_that_does_not_answer_is_told(self, page: Page) -> None:
        page.browser_page.route("**/pusher.json", lambda route: route.fulfill(status=503))
        told = page.run("connect(() => token).catch((error) => error.message)")
        assert told == "/pusher.json answers 503"
