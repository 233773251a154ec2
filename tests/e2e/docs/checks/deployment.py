# What the examples of docs/deployment.rst come to.

# -- after: gunicorn --worker-class gthread --workers 2 --threads 8 app:app

form = {"socket_id": "123.456", "channel_name": "private-orders"}
assert post("/pusher/auth", **form).status_code == 403


# -- after: @pusher.hand_over

@app.post("/two")
def two():
    pusher.defer("news", "first", {})
    pusher.defer("news", "second", {})
    return ""

from unittest.mock import patch

with patch("_flask_pusher.transport.Backend.send_request", return_value={}) as sent:
    assert anybody().post("/two").status_code == 200
assert [call.args[0].path for call in sent.call_args_list] == ["/apps/1/events"] * 2


# -- after: export FLASK_PUSHER_KEY=new-key

body = '{"events": []}'
with app.app_context():
    old = pusher.sign_webhook(body)
project.load()
project.pusher.webhooks.presence(lambda: None)
assert project.app.extensions["pusher"].key == "new-key"
with project.app.app_context():
    new = project.pusher.sign_webhook(body)
assert new["X-Pusher-Key"] == "new-key"
for headers in (old, new):
    answer = project.app.test_client().post("/pusher/events", data=body, headers=headers)
    assert answer.status_code == 200
