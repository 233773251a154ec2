# What the examples of docs/models.rst come to.

# -- after: <form method="post"><button>Order</button></form>

import shop

browser = shop.app.test_client()
assert "<li>" not in browser.get("/orders").text
with shop.pusher.record_events() as events:
    assert browser.post("/orders").status_code == 302
assert [one.data for one in events] == [{"Order": {"created": [1], "updated": [], "deleted": []}}] * 2
assert "<li>Order 1 is new.</li>" in browser.get("/orders").text
form = {"socket_id": "123.456", "channel_name": "private-user-ana"}
assert browser.post("/pusher/auth", data=form).status_code == 200
assert anybody().post("/pusher/auth", data=form).status_code == 403


# -- after: pusher.defer("private-orders", "changed", {})

import closing
import shop

with shop.app.app_context(), shop.pusher.record_events() as events:
    closing.close_all()
assert [(one.channels, one.data) for one in events] == [(["private-orders"], {})]


# -- after: with app.app_context(), pusher.no_broadcasts():

import shop

assert shop.app.test_client().get("/orders").text.count("<li>") == 5
with shop.app.app_context():
    shop.db.engine.dispose()
