# What the examples of docs/recipes.rst come to.

# -- after: from flask import abort, redirect, request, url_for

ana = anybody()
assert subscribe(ana, "private-orders").status_code == 403
for user, password in [("ana", "wrong"), ("eve", "correct horse"), ("eve", "")]:
    assert ana.post("/login", data={"user": user, "password": password}).status_code == 401
assert ana.post("/logout").status_code == 302
assert ana.post("/login", data={"user": "ana", "password": "correct horse"}).status_code == 302
assert subscribe(ana, "private-orders").status_code == 200
assert channel_data(subscribe(ana, "presence-room-7"))["user_id"] == "ana"
signed_in = ana.post("/pusher/user-auth", data={"socket_id": "123.456"}).json
assert json.loads(signed_in["user_data"])["id"] == "ana"
with recording():
    assert ana.post("/logout").status_code == 302
assert subscribe(ana, "private-orders").status_code == 403


# -- after: csrf = CSRFProtect(app)

assert subscribe(anybody(), "private-orders").status_code == 403  # by the handler
pusher.webhooks.channel_existence(lambda: None)
assert deliver("/pusher/events", name="channel_vacated", channel="news") == 200
assert anybody().post("/wave").status_code == 400  # for want of a token


# -- after: function connectWith(token) {

import api

headers = {
    "Origin": "https://shop.example",
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "Authorization",
}
answer = api.app.test_client().options("/pusher/auth", headers=headers)
assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
assert answer.headers["Access-Control-Allow-Headers"] == "Authorization"

def status(channel, token):
    form = {"socket_id": "123.456", "channel_name": channel}
    headers = {"Authorization": f"Bearer {token}"}
    answer = api.app.test_client().post("/pusher/auth", data=form, headers=headers)
    return answer.status_code

token = api.tokens.dumps("ana")
assert status("private-user-ana", token) == 200
assert status("private-user-ben", token) == 403
assert status("private-user-ana", token[:-1]) == 403
assert status("private-user-ana", "") == 403
tab = open_tab()
assert tab.evaluate("connectWith('t').config.channelAuthorizer !== undefined")


# -- after: from flask_limiter import Limiter

browser = anybody()
statuses = [subscribe(browser, "private-orders").status_code for _ in range(61)]
assert statuses == [403] * 60 + [429]


# -- after: async def members_of(project_id):

ana = anybody()
assert subscribe(ana, "private-project-7").status_code == 403
with ana.session_transaction() as cookies:
    cookies["_user_id"] = "ana"
assert subscribe(ana, "private-project-7").status_code == 200


# -- after: # mounted.py

import mounted
from werkzeug.test import Client

browser = Client(mounted.application)
page = browser.get("/shop/").text
assert '"endpoint": "/shop/pusher/auth"' in page
assert subscribe(browser, "private-orders", "/shop").status_code == 403
assert browser.post("/shop/logout").status_code == 400  # for want of a token


# -- after: def tenant_channel(kind):

browser = app.test_client()
with browser.session_transaction() as cookies:
    cookies["tenant"] = 7
assert browser.get("/kitchen").text == "private-tenant-7-orders"
assert subscribe(browser, "private-tenant-7-orders").status_code == 200
assert subscribe(browser, "private-tenant-8-orders").status_code == 403
assert subscribe(anybody(), "private-tenant-7-orders").status_code == 403


# -- after: def client_of(tenant):

other = client_of({"app_id": "2", "key": "k", "secret": "s", "cluster": "eu"})
assert (other.host, other.key) == ("api-eu.pusher.com", "k")


# -- after: def work(job_id):

with recording() as events:
    work("7")
assert [event.data["percent"] for event in events] == list(range(0, 101, 10))
