# What the examples of docs/upgrading.rst come to.

# -- first

from flask import Flask
from flask_pusher import Pusher

with Flask("bare").app_context(), pytest.raises(RuntimeError, match="init_app"):
    Pusher().client
other = Pusher()
other.auth(lambda channel_name, socket_id: True)
other.channel_data(lambda channel_name, socket_id: {"user_id": 7, "name": "Ana"})
stranger = new_app(other)
seen = channel_data(subscribe(stranger.test_client(), "presence-room"))
assert seen["user_id"] == "7"
assert seen["user_info"] == {"name": "Ana"}
body = '{"time_ms": 1327078148132, "events": []}'
other.webhooks.presence(lambda: None)
for age, status in ((600, 403), (None, 200)):
    stranger = new_app(other, PUSHER_WEBHOOK_MAX_AGE=age)
    with stranger.app_context():
        headers = other.sign_webhook(body)
    answer = stranger.test_client().post("/pusher/events", data=body, headers=headers)
    assert answer.status_code == status


# -- after: # moved.py

import moved

with moved.app.app_context(), moved.pusher.record_events() as events:
    assert moved.app.test_client().post("/hello").status_code == 204
assert [event.name for event in events] == ["hello"]
with pytest.raises(TypeError, match="unexpected keyword argument"):
    Pusher(Flask("another"), app_id="1", key="any-key", secret="any-secret")


# -- after: # shop.py

import shop

form = {"socket_id": "123.456", "channel_name": "private-a"}
assert shop.app.test_client().post("/api/authorize/", data=form).status_code == 403
assert shop.app.test_client().post("/pusher/auth", data=form).status_code == 404
