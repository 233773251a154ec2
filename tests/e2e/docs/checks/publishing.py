# What the examples of docs/publishing.rst come to.

# -- after: pusher.defer(["private-orders", "news"], "shipped", {"order": order_id})

with recording() as events:
    assert anybody().post("/orders/1001/ship").status_code == 404
    assert events == []
    assert anybody().post("/orders/7/ship").status_code == 204
assert [(event.channels, event.data) for event in events] == [
    (["private-order-7"], {"by": "truck"}),
    (["private-orders", "news"], {"order": 7}),
]


# -- after: def send_reminder(order_id):  # a job

with pusher.record_events() as events:
    project.module.send_reminder(7)
assert [event.name for event in events] == ["reminder"]


# -- after: # orders.py

import orders

with orders.app.app_context(), orders.pusher.record_events() as events:
    orders.db.create_all()
    browser = orders.app.test_client()
    assert browser.post("/orders/7").text == "Added."
    assert browser.post("/orders/7").text == "There is such an order already."
    orders.db.engine.dispose()
assert [(event.channels, event.data) for event in events] == [
    (["orders"], {"number": 7}),
    (["#server-to-user-7"], {"text": "Order 7 has come in."}),
]


# -- after: @app.post("/publish")

with recording() as events:
    assert anybody().post("/publish").status_code == 204
assert [(event.channels, event.name) for event in events] == [
    (["news"], "flash"),
    (["news", "sport"], "flash"),
    (["news"], "flash"),
    (["prices"], "changed"),
    (["diary"], "added"),
]
assert events[3].data == {"tea": "2.40"}
assert events[4].data == {"day": "Thu, 31 Jan 2030 00:00:00 GMT"}


# -- after: app.json = JSONProvider(app)

with recording() as events:
    pusher.trigger("news", "tags", {2, 1})
assert events[0].data == [1, 2]
with recording(), pytest.raises(ValueError):
    pusher.trigger("news", "flash", {"number": float("nan")})
with recording(), pytest.raises(ValueError):
    pusher.trigger("news", "flash", "a" * 10_241)


# -- after: @app.post("/announce")

assert post("/announce").json() == {"published": True}
from flask_pusher import Pusher, local_server

with local_server(new_app(Pusher(), PUSHER_KEY="any-key")) as of_another_secret:
    project.publish_to(of_another_secret.port)
    answer = anybody().post("/announce")
assert answer.status_code == 502
assert answer.json["reason"] == "PusherBadAuth"

project.lose_channels()
answer = anybody().post("/announce")
assert answer.status_code == 504
assert "flask pusher serve" in answer.json["reason"]


# -- after: @app.get("/who")

with app.app_context(), pusher.record_events(channels={"presence-room-7": ["ana", "ben"]}):
    said = anybody().get("/who").json
assert said["rooms"] == {"presence-room-7": {"user_count": 2}}
assert said["room"] == 2
assert said["people"] == [{"id": "ana"}, {"id": "ben"}]


# -- after: @app.post("/count")

project.terminal.env.pop("FLASK_PUSHER_PORT")
project.load()
open_tab()
project.wait_for_subscriber("greetings")
assert post("/count").json() == {"subscription_count": 1}


# -- after: def import_orders(rows):

with pusher.record_events() as events:
    project.module.import_orders(["a", "b"])
assert [(event.name, event.data) for event in events] == [
    ("progress", {"done": 1}),
    ("progress", {"done": 2}),
    ("finished", {"rows": 2}),
]


# -- after: @app.post("/questions/<int:number>")

with recording() as events:
    anybody().post("/questions/7", data={"question": "And tomorrow?"})
assert "".join(event.data.get("text", "") for event in events) == "It will rain."
assert [event.name for event in events] == ["piece", "piece", "piece", "answered"]


# -- after: function send(text) {

ana, ben = open_tab(), open_tab()
for tab in (ana, ben):
    tab.has("greetings.subscribed")
ben.evaluate("send('Hi')")
ana.has_said("read Hi")
assert "read Hi" not in ben.said


# -- after: lost.extend(events)  # pusher.defer(*event) tries one again, once

with recording():  # nothing is sent, so nothing is lost
    anybody().post("/orders/7/ship")
assert lost == []
from flask_pusher import Pusher, local_server

with local_server(new_app(Pusher(), PUSHER_KEY="any-key")) as of_another_secret:
    project.publish_to(of_another_secret.port)
    with logged() as said, project.app.app_context():
        project.pusher.defer("private-orders", "shipped", {"by": "truck"})
(event,) = project.module.lost
assert (event.channels, event.data) == (["private-orders"], {"by": "truck"})
assert "private-orders" in said[0]
assert "truck" not in said[0]
project.terminal.env.pop("FLASK_PUSHER_PORT")
project.load()


# -- after: # metrics.py

from prometheus_client import REGISTRY

project.channels()
with app.app_context():
    pusher.defer(["news", "sport"], "flash", {})
    pusher.defer("news", "flash", {})
assert REGISTRY.get_sample_value("pusher_events_total") == 2
assert REGISTRY.get_sample_value("pusher_wait_seconds_count") >= 1


# -- after: # tracing.py

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with app.app_context():
    pusher.defer("news", "flash", {})
(span,) = exporter.get_finished_spans()
assert span.attributes == {"messaging.batch.message_count": 1, "pusher.tries": 1}


# -- after: queue = []  # a list, in place of Celery's or RQ's

assert anybody().post("/orders/7/ship").status_code == 204
assert len(queue) == 1
with recording() as events:
    work()
assert [event.channels for event in events] == [["private-order-7"], ["private-orders", "news"]]
