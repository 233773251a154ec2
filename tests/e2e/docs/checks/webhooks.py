# What the examples of docs/webhooks.rst come to.

# -- after: seen = []

assert deliver("/pusher/events", name="member_added", channel="presence-board-7", user_id="ana") == 200
assert deliver("/pusher/events", name="member_added", channel="presence-room-7", user_id="ben") == 200
assert seen == [("ana", 7)]


# -- after: @pusher.webhooks.channel_existence

with logged() as said:
    for path in ("/pusher/events", "/pusher/events/channel_existence"):
        for name in ("channel_occupied", "channel_vacated"):
            assert deliver(path, name=name, channel="news") == 200
assert said.count("news: channel_occupied") == 2
assert said.count("Nobody listens to news") == 2

from flask_pusher import Pusher

for group, path, names, _fields in table_in("docs/webhooks.rst"):
    calls = []
    other = Pusher()
    getattr(other.webhooks, group)(lambda: calls.append(request.path))
    stranger = new_app(other)
    for name in names.split(", "):
        for url in (path, "/pusher/events"):
            assert deliver(url, stranger, other, name=name, channel="a") == 200
            assert calls.pop() == url


# -- after: def reconcile():

room = "presence-room-7"
for _ in range(2):
    assert deliver("/pusher/events", name="member_added", channel=room, user_id="ana") == 200
assert deliver("/pusher/events", name="member_added", channel=room, user_id="ben") == 200
assert who_is_online(room) == ["ana", "ben"]
assert deliver("/pusher/events", name="member_removed", channel=room, user_id="ana") == 200
assert who_is_online(room) == ["ben"]
with app.app_context(), pusher.record_events(channels={room: ["cleo", "dora"]}):
    assert app.test_cli_runner().invoke(args=["reconcile"]).exit_code == 0
assert who_is_online(room) == ["cleo", "dora"]


# -- after: flask reconcile

assert who_is_online("presence-room-7") == []

import time

def status(body, **more):
    with app.app_context():
        headers = {**pusher.sign_webhook(body), **more}
    return anybody().post("/pusher/events", data=body, headers=headers).status_code

old = round(time.time() * 1000) - 601_000
assert status('{"events": []}') == 200
assert status('{"events": []}', **{"X-Pusher-Key": "another"}) == 403
assert status('{"events": []}', **{"X-Pusher-Signature": "0" * 64}) == 403
assert status(json.dumps({"time_ms": old, "events": []})) == 403
assert status("[]") == 400
