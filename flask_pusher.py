"""Realtime for Flask: binds an application to Pusher Channels.

A *channel* is a name that browsers subscribe to; an *event* is a name and some data that a server
sends to a channel. A Channels service, hosted by Pusher or run by yourself, carries the events to
the browsers. This module publishes them, and answers what browsers and the service ask::

    from flask import Flask, session
    from flask_pusher import Pusher

    app = Flask(__name__)
    app.config.from_prefixed_env()  # FLASK_PUSHER_APP_ID, FLASK_PUSHER_KEY, FLASK_PUSHER_SECRET
    pusher = Pusher(app)

    @app.post("/orders/<int:order_id>/ship")
    def ship(order_id):
        pusher.defer(f"private-order-{order_id}", "shipped", {"by": "truck"})
        return "", 204

    @pusher.auth("private-order-<int:order_id>")
    def may_follow(channel_name, socket_id, order_id):
        return order_id in session.get("orders", ())

A page of this application keeps itself up to date, with no JavaScript of its own. Its element
listens to the channel, and when an event comes its content is what the URL answers::

    {{ pusher_scripts() }}
    <p data-pusher="private-order-7" data-pusher-src="{{ url_for('order', order_id=7) }}"></p>

By pusher-js, the official library for browsers, it does with the events what it likes::

    const pusher = new Pusher({{ PUSHER_KEY|tojson }}, {{ pusher_options()|tojson }});
    pusher.subscribe("private-order-7").bind("shipped", (data) => alert(data.by));

``flask pusher check`` says whether the settings are right, and ``flask pusher trigger`` publishes by
hand. ``flask pusher serve``, with ``Flask-Pusher[local]``, is a Channels server for development: it
takes any credentials, and says which settings lead to it.

:class:`Pusher` is the extension, :class:`Client` what ``app.extensions["pusher"]`` holds,
:class:`Webhooks` what ``pusher.webhooks`` is, and :func:`local_server` a Channels server for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, overload
from uuid import UUID

from flask import Flask, current_app, has_app_context
from pusher.errors import PusherError
from pusher.signature import sign

from _flask_pusher import expect, handlers, routes, rules
from _flask_pusher.authorisation import Authorisation, socket_id_of_request
from _flask_pusher.cli import give_commands
from _flask_pusher.client import Client, api_of
from _flask_pusher.local import LocalServer, local_server
from _flask_pusher.models import ModelDecorator, Models, Row
from _flask_pusher.outbox import Outboxes, places
from _flask_pusher.publisher import checked_calls, publish_failed, publish_or_raise, published
from _flask_pusher.recording import RecordedEvent, Recordings
from _flask_pusher.settings import make_client, read_settings
from _flask_pusher.templates import Templates
from _flask_pusher.transactions import Followed
from _flask_pusher.transport import NoAnswer
from _flask_pusher.webhooks import Webhooks, WebhookViews, webhook_headers

__all__ = [
    "Client",
    "LocalServer",
    "NoAnswer",
    "Pusher",
    "PusherError",
    "RecordedEvent",
    "Webhooks",
    "local_server",
    "publish_failed",
    "published",
]


class Pusher:
    """The extension: gives an application a Channels client and the routes that Channels calls.

    :param app: the application; or leave it out and call :meth:`init_app` later. One instance
        serves any number of applications, which have its handlers in common.
    :param url_prefix: the path that the routes are below.
    :raises ValueError: as :meth:`init_app`, and for a prefix that has no slash in front, or a
        variable in it.

    A handler runs in the context of the request, may be a coroutine function (then install
    ``Flask[async]``), and may be declared before or after :meth:`init_app`. Decorators return the
    function as it was. A request with anything wrong in it gets a 4xx status and no handler runs.
    The routes are on ``pusher.blueprint``, for ``csrf.exempt(pusher.blueprint)`` and the like.
    """

    def __init__(self, app: Flask | None = None, url_prefix: str = "/pusher") -> None:
        if app is not None:
            app = routes.expect_application(app)
        self.blueprint = routes.make_blueprint(url_prefix, __name__)
        """The blueprint that holds the routes. What adds to it, as ``CORS(pusher.blueprint)``
        does, has to come before ``init_app``."""
        self._handlers = handlers.Handlers()
        self.webhooks = Webhooks(self._handlers)
        """Where handlers of webhooks are declared: see :class:`Webhooks`."""
        self._recordings = Recordings()
        self._followed = Followed(places)
        self._models = Models(self._followed)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an application its client, its routes and its templates' variables.

        Settings are keys of ``app.config``, and each works as text, too:

        - ``PUSHER_APP_ID``, ``PUSHER_KEY``, ``PUSHER_SECRET``: the credentials, required; or
          ``PUSHER_URL``, ``https://KEY:SECRET@HOST[:PORT][/PATH]/apps/APP_ID``, which single keys
          win over
        - ``PUSHER_CLUSTER``; or ``PUSHER_HOST``, ``PUSHER_PORT``, ``PUSHER_SSL`` and
          ``PUSHER_PATH``, of the HTTP API
        - ``PUSHER_TIMEOUT``: seconds, 5; ``PUSHER_BACKEND`` and ``PUSHER_BACKEND_OPTIONS``: the
          HTTP adapter, a class or its import path, and its options, a dict. ``"log"`` sends
          nothing, logs what it would send, and needs no credentials
        - ``PUSHER_MAX_EVENT_BYTES``: most bytes of an event's data, 10240; None: unchecked
        - ``PUSHER_PUBLISHER``: who publishes what requests defer, a background ``thread`` or the
          thread of the ``request``
        - ``PUSHER_ENCRYPTION_MASTER_KEY_BASE64``: 32 bytes in base64, for encrypted channels
        - ``PUSHER_AUTH``, ``/auth``, and ``PUSHER_USER_AUTH``, ``/user-auth``: paths of routes
        - ``PUSHER_AUTH_MAX_CHANNELS``: most channels in one request, 500
        - ``PUSHER_WEBHOOK_MAX_AGE``: seconds that a webhook stays valid, 600; None: for ever
        - ``PUSHER_EXTRA_TOKENS``: a dict of further keys and secrets that webhooks may come with
        - ``PUSHER_JS_URL``, ``PUSHER_IDIOMORPH_URL``: where ``pusher_scripts()`` loads them from, a
          CDN; empty: the page loads its own copies
        - ``PUSHER_CLIENT_OPTIONS``: a dict, laid over what ``pusher_options()`` gives

        Templates get ``PUSHER_KEY`` and ``pusher_options()``, the arguments of ``new Pusher(...)``,
        and ``pusher_scripts(nonce=None, morph=True)``, the scripts by which elements with
        ``data-pusher`` keep themselves up to date.

        :raises ValueError: for a ``PUSHER_*`` setting that is missing or impossible. It names the
            setting and what it should be, and shows what it held where that is no secret.
        :raises TypeError: for what is no Flask application.
        :raises LookupError: for a pattern's converter that the application does not have.
        :raises RuntimeError: where the application has a ``Pusher`` or a client in
            ``extensions["pusher"]`` already; a blueprint named ``pusher`` is a ``ValueError``.
        """
        app = routes.expect_application(app)
        if not hasattr(app, "extensions"):  # an application for Flask-Pusher 3.0 may delete it
            app.extensions = {}
        routes.refuse_collisions(app)
        settings = read_settings(app)
        client = make_client(app, settings)
        self._recordings.watch(client)
        has_thread, hand_over = settings.publisher == "thread", self._handlers.hand_over
        binding = routes.Binding(
            settings,
            client,
            Outboxes(app, client, has_thread, self._recordings, self._followed, hand_over),
            self._handlers,
            Authorisation(app, client, settings, self._handlers),
            WebhookViews(app, settings, self._handlers),
            Templates(client, settings),
            self._models,
        )
        app.register_blueprint(self.blueprint, binding=binding)
        binding.outboxes.watch()
        binding.templates.give(app)
        give_commands(app)
        app.extensions["pusher"] = client
        app.extensions["flask_pusher"] = binding
        self._handlers.is_served = True

    @property
    def client(self) -> Client:
        """The current application's client, the same as ``current_app.extensions["pusher"]``.

        :raises RuntimeError: outside an application context, or in one of an application that
            this extension was not given.
        """
        client: Client = self._binding and routes.of_current_app("pusher")
        return client

    @property
    def _binding(self) -> routes.Binding:
        binding: routes.Binding = routes.of_current_app("flask_pusher")
        if binding.handlers is not self._handlers:
            raise RuntimeError(f"{current_app.name!r} was given another Pusher: use that one.")
        return binding

    @property
    def socket_id(self) -> str | None:
        """The connection that the page behind this request has to Channels, so that
        ``pusher.defer(channel, event, data, pusher.socket_id)`` spares the page that caused the
        event. From the header ``X-Socket-ID``, as Laravel Echo sends it, or else the field
        ``socket_id`` of the form or JSON object; None where that has not the form of a socket id.

        .. versionadded:: 4.0
        """
        return socket_id_of_request()

    # -- Who may subscribe, and who is there --

    @overload
    def auth(self, pattern: str, /) -> Callable[[handlers.PatternAuth], handlers.PatternAuth]: ...

    @overload
    def auth(self, handler: handlers.AuthHandler, /) -> handlers.AuthHandler: ...

    def auth(self, pattern_or_handler: Any = None, /) -> Any:
        """Declare who may subscribe to private and presence channels.

        The handler is given the channel's name and the socket id, both text. It returns whether
        the user of this request may subscribe: True, or an object that is, such as a user, if
        its ``is_authenticated`` is not false; but never what a view could answer with, text, a
        dict, a list, a tuple, a response. Of status 400 or more that is the answer, as with
        ``abort()``, and else a refusal::

            @pusher.auth
            def may_subscribe(channel_name, socket_id):
                return current_user.is_authenticated

        With a pattern it is asked about the channels that match, and is given the variables too,
        by name. Patterns are as in Flask's routes, with the same converters. A variable reaches to
        the first place where what follows it matches too. The most specific pattern wins: the one
        with most text before its first variable, then the one with most text, then the one with
        the narrower converters. From narrow to wide they are ``any``, ``uuid``, ``int``,
        ``float``, ``string`` with a length, the default and ``string``, ``path``; one of your own
        stands by its ``weight`` (10, 20, 50, 60, 90, 110, 200 are theirs). A number with a limit
        comes before one without, and of two ``any`` the one with fewer words. The handler without
        a pattern is asked about the rest::

            @pusher.auth("private-order-<int:order_id>")
            def may_follow(channel_name, socket_id, order_id):
                return current_user.owns(order_id)

        Without any handler for a channel, nobody may subscribe. Why a subscription was refused is
        logged at DEBUG, and as a warning where it is a mistake.

        :raises TypeError: for a handler that cannot be called so.
        :raises ValueError: for a pattern that can match no channel, or that is declared already.
            A converter that the application lacks is a ``LookupError``, at ``init_app``, or at a
            request if the handler is declared later.

        .. versionchanged:: 4.0
            Patterns.
        """
        return self._handlers.auth.declare(pattern_or_handler)

    @overload
    def channel_data(
        self, pattern: str, /
    ) -> Callable[[handlers.PatternData], handlers.PatternData]: ...

    @overload
    def channel_data(self, handler: handlers.DataHandler, /) -> handlers.DataHandler: ...

    def channel_data(self, pattern_or_handler: Any = None, /) -> Any:
        """Declare what the members of a presence channel see of each other.

        The handler is called as that of :meth:`auth`, after it, and patterns work the same. It
        returns a dict. ``user_id``, text or a number, says who this is; several connections of one
        id are one member. It is the socket id unless it is given. ``user_info``, a dict, is what
        the others see; left out, it is all the other values::

            @pusher.channel_data
            def member(channel_name, socket_id):
                return {"user_id": current_user.id, "name": current_user.name}

        In the page, ``channel.bind("pusher:member_added", member => member.info.name)``.

        A handler that returns None gives no data: the page has to be signed in then, and what
        :meth:`user_auth` gave stands for the member.

        :raises ValueError: as :meth:`auth`.

        .. versionchanged:: 4.0
            Patterns; ``user_info`` made of the other values; None.
        """
        return self._handlers.channel_data.declare(pattern_or_handler)

    def user_auth(self, handler: handlers.UserHandler = handlers.NOTHING) -> handlers.UserHandler:
        """Declare who the user is, for ``pusher.signin()`` in the page.

        The handler is given the socket id. It returns a dict with ``id``, text or a number, and
        if wanted ``user_info``, a dict, and ``watchlist``, a list of ids; or None to refuse::

            @pusher.user_auth
            def sign_in(socket_id):
                return {"id": current_user.id} if current_user.is_authenticated else None

        ``client.send_to_user(id, event, data)`` and ``client.terminate_user_connections(id)``
        reach whom it signed in. An id has 1 to 184 characters (128 on the hosted service) of
        ``A-Z a-z 0-9 _ - = @ , . ;``.

        :raises ValueError: for a second handler.

        .. versionadded:: 4.0
        """
        return self._handlers.user_auth.declare(handler)

    # -- Publishing --

    @overload
    def trigger(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
        info: Iterable[str] | None = None,
        wait: Literal[True] = True,
    ) -> Any: ...

    @overload
    def trigger(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
        info: None = None,
        *,
        wait: Literal[False],
    ) -> None: ...

    def trigger(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
        info: Iterable[str] | None = None,
        wait: bool = True,
    ) -> Any:
        """Publish an event now: :meth:`Client.trigger` of the current application's client.

        :param wait: False gives the event to the publisher, whatever becomes of this request, job
            or transaction, and returns None at once: for the progress of a job, or an answer that
            comes in pieces. A service that is down is no exception then. What is lost is told as
            for :meth:`defer`, and :meth:`hand_over` is not asked. Where the thread of the request
            publishes, the event leaves when the request ends, however that does.
        :raises ValueError: for ``info`` with ``wait=False``, too: nobody is there for the answer.

        .. versionadded:: 4.0
        """
        if not wait:
            if info is not None:
                raise ValueError("wait=False leaves without an answer, and info asks for one.")
            outboxes = self._binding.outboxes
            outboxes.send(api_of(outboxes.client).events(channels, event_name, data, socket_id))
            return None
        # A test's own object in the client's place may take no more than it is given.
        given: dict[str, Any] = {"socket_id": socket_id, "info": info}
        options = {name: value for name, value in given.items() if value is not None}
        return self.client.trigger(channels, event_name, data, **options)

    def defer(
        self,
        channels: str | Iterable[str],
        event_name: str,
        data: Any,
        socket_id: str | None = None,
    ) -> None:
        """Publish an event when this request has succeeded and its response has been sent.

        Takes and checks what :meth:`Client.trigger` does, at once: a later change of the data is
        not seen. The rule:

        =============================  ===============================================================
        where it is called             when the event leaves
        =============================  ===============================================================
        anywhere in a request          when the server has closed the response, by the publisher; not
                                       where the status is 400 or more, or an exception left the
                                       application. Before, after and teardown functions, error
                                       handlers and copies of the context are in the request too
        while a response is streamed   when that is closed; not where it raised
        after it, in a copied context  when that copy ends; not by an exception
        in another context of the app  when that ends, which waits for the publisher for a bounded
                                       time; not by an exception. Commands, jobs and threads have one
        inside :meth:`record_events`   into the list, before the test client returns; what is
                                       undecided at its end, then
        =============================  ===============================================================

        A client that goes away changes nothing. The publisher keeps each channel's events in
        order, and is patient with a service that restarts, for 30 seconds. What is lost is logged,
        and told by the signal :data:`publish_failed`; what was published by :data:`published`.

        :raises ValueError: or ``TypeError``, as :meth:`Client.trigger` does.

        .. versionadded:: 4.0
        """
        outboxes = self._binding.outboxes
        outboxes.defer(api_of(outboxes.client).events(channels, event_name, data, socket_id))

    def user(self, user_id: str | int | UUID) -> str:
        """The channel of a signed-in user, for :meth:`trigger` and :meth:`defer`: all connections
        that :meth:`user_auth` has signed in as this user have it, and pages subscribe to it by
        ``pusher.signin()`` alone::

            pusher.defer(pusher.user(order.user_id), "shipped", {"order": order.id})

        :param user_id: the ``id`` that the ``user_auth`` handler gave, text, a number or a UUID.
        :raises ValueError: for what cannot be a user's id.

        .. versionadded:: 4.0
        """
        return rules.SERVER_TO_USER + expect.user_id(user_id)

    def follow(self, session: Any) -> None:
        """Let deferred events share the fate of a SQLAlchemy session's transaction.

        An event that is deferred while the session is in a transaction is dropped when that
        transaction, or the savepoint it was deferred in, is rolled back; and when it was never
        committed, if it wrote::

            db = SQLAlchemy(app)
            pusher.follow(db.session)

        :param session: Flask-SQLAlchemy's ``db.session``, a ``scoped_session``, a
            ``sessionmaker`` or a ``Session``.
        :raises TypeError: for anything else.

        .. versionadded:: 4.0
        """
        self._followed.follow(session)

    def broadcasts(self, model: type[Row], event_name: str = "changed") -> ModelDecorator[Row]:
        """Declare which channels hear of the rows of a model, once a change is committed.

        The function is given a row and returns a channel's name, or several. Below
        :meth:`follow`::

            pusher.follow(db.session)

            @pusher.broadcasts(Order)
            def channels_of(order):
                return ["private-orders", f"private-user-{order.user_id}"]

        Each of the channels gets one event a transaction, deferred as by :meth:`defer`. It says
        which rows, by their primary keys, and nothing else of them::

            {"Order": {"created": [8], "updated": [7], "deleted": []}}

        A key of several columns is a list. Of more than 100 rows, or more bytes than an event may
        have, it is ``{}``. Whoever could see a row before hears as well: the function is asked
        about the row as it was loaded, too, as far as that is in memory. What is rolled back tells
        nobody. Outside of a request the event leaves at the commit.

        The function may read columns and relationships; where only the key of one is changed,
        SQLAlchemy leaves the other as it is until the commit. It is asked in the flush: it writes
        nothing and queries nothing by itself. Where it fails, or names what is no channel, that is
        logged, and the commit goes on. Statements that change rows in bulk are not seen.

        :param model: a mapped class. Its subclasses are told of too, by this one's name.
        :param event_name: at most 200 characters.
        :raises RuntimeError: where no session is followed.
        :raises TypeError: for what is no mapped class, or a coroutine function.
        :raises ValueError: for a second function, or an event's name that is none.

        .. versionadded:: 4.0
        """
        return self._models.broadcasts(model, event_name)

    def no_broadcasts(self) -> AbstractContextManager[None]:
        """Tell nobody of what is flushed inside, for imports and seeds; in this context alone::

            with pusher.no_broadcasts():
                db.session.add_all(orders)
                db.session.commit()

        .. versionadded:: 4.0
        """
        return self._models.silence()

    def hand_over(self, handler: handlers.HandOver = handlers.NOTHING) -> handlers.HandOver:
        """Declare who takes deferred events in place of the publisher: a task queue.

        The function is called with a list of dicts, which JSON can carry, when the request has
        succeeded and before its response leaves, in an application context. In the worker,
        :meth:`publish` is the other end::

            @pusher.hand_over
            def enqueue(calls):
                publish_events.delay(calls)

        A queue keeps no order. Where the function raises, that is logged, and the publisher takes
        the events.

        :raises ValueError: for a second function.

        .. versionadded:: 4.0
        """
        return self._handlers.hand_over.declare(handler)

    def publish(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Publish what was handed over, in a worker's application context.

        :param calls: what the function under :meth:`hand_over` was called with.
        :raises PusherError: for what a retry can mend. An event that the service refuses (400,
            413) is told by :data:`publish_failed` instead, or it would be retried for ever.
        :raises ValueError: for anything that was not handed over.

        .. versionadded:: 4.0
        """
        wires, outboxes = checked_calls(calls), self._binding.outboxes
        if not outboxes.record(wires):
            publish_or_raise(outboxes.app, outboxes.client, wires)

    # -- Webhooks and tests --

    @contextmanager
    def record_events(
        self, channels: Mapping[str, int | list[str] | tuple[str, ...]] | None = None
    ) -> Iterator[list[RecordedEvent]]:
        """Record what is published instead of sending it, for an application's tests.

        Inside, everything is checked and serialised as it always is, and nothing leaves the
        process::

            with app.app_context(), pusher.record_events() as events:
                app.test_client().post("/orders/7/ship")
            assert events[0].channels == ["private-order-7"]

        It holds for the current application and all its threads; outside an application context,
        for all applications of this extension. It can be nested: every list gets the events. A
        :class:`Client` of your own, beside the extension's, is in each list.

        :param channels: what the client's questions are answered by: a dict of channels' names
            with the number of subscribers, or the members' ids on a presence channel. Without it,
            every channel is empty.

        .. versionadded:: 4.0
        """
        client = self._binding.client if has_app_context() else None
        with self._recordings.record(client, channels) as recording:
            yield recording.events

    def sign_webhook(self, body: str | bytes) -> dict[str, str]:
        """The headers with which Channels would send this webhook, for an application's tests::

            body = '{"events": [{"name": "channel_vacated", "channel": "news"}]}'
            app.test_client().post("/pusher/events", data=body, headers=pusher.sign_webhook(body))

        :param body: exactly what is posted, as bytes or as text that is sent in UTF-8.

        .. versionadded:: 4.0
        """
        client = self._binding.client
        return webhook_headers(client.key, client.secret, body)

    def _sign(self, message: str) -> str:
        """Sign as Flask-Pusher 3.0 did, whose applications' tests call it."""
        return str(sign(self._binding.client.secret, message))
