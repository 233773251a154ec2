# What the examples of docs/channels.rst come to.

# -- after: const orders = pusher.subscribe("private-orders");

assert subscribe(anybody(), "private-orders").status_code == 403
answer = subscribe(log_in("ana"), "private-orders")
assert answer.status_code == 200
assert answer.json.keys() == {"auth"}

tab = open_tab()
tab.has_said("refused 403")
tab.fill("Name", "ana")
tab.press("Log in")
tab.has_said("subscribed to private-orders")
with app.app_context():
    pusher.trigger("private-orders", "shipped", {"order": 7})
tab.has_said("shipped 7")


# -- after: @pusher.auth("private-order-<int:order_id>")

ana = log_in("ana")
with ana.session_transaction() as cookies:
    cookies["orders"] = [7]
assert subscribe(ana, "private-order-7").status_code == 200
assert subscribe(ana, "private-order-8").status_code == 403
assert subscribe(ana, "private-user-ana").status_code == 200
assert subscribe(ana, "private-user-ben").status_code == 403
assert subscribe(ana, "private-order-seven").status_code == 200  # no pattern matches
for wrong in ("public-<name>", "private-user-<name>"):
    with pytest.raises(ValueError):
        pusher.auth(wrong)(lambda channel_name, socket_id, name: True)


# -- after: @pusher.auth("private-dm-<a>;<b>")

luc = log_in("jean-luc")
assert subscribe(luc, "private-dm-jean-luc;ana").status_code == 200
assert subscribe(luc, "private-dm-jean;luc-ana").status_code == 403

def ask(browser, **fields):
    return browser.post("/pusher/auth", json=fields)

ana, stranger = log_in("ana"), anybody()
assert ask(ana, socket_id="1.2", channel_name="private-a").status_code == 200
assert ask(stranger, socket_id="1.2", channel_name="private-a").status_code == 403
assert ask(ana, socket_id="1", channel_name="private-a").status_code == 400
assert ask(ana, socket_id="1.2", channel_name="private a").status_code == 400
assert ask(ana, socket_id="1.2").status_code == 400
assert ask(ana, socket_id="1.2", channel_name="public").status_code == 404
assert ask(ana, socket_id="1.2", channel_name="private-encrypted-a").status_code == 404
many = {f"channel_name[{number}]": "private-a" for number in range(501)}
assert ask(ana, socket_id="1.2", **many).status_code == 413
few = {"channel_name[0]": "private-user-ana", "channel_name[1]": "private-user-ben"}
answer = ask(ana, socket_id="1.2", **few).json
assert answer["private-user-ana"]["status"] == 200
assert answer["private-user-ana"]["data"].keys() == {"auth"}
assert answer["private-user-ben"] == {"status": 403}


# -- after: @pusher.auth("private-account-<name>")

assert subscribe(anybody(), "private-account-ana").status_code == 401
assert subscribe(log_in("ben"), "private-account-ana").status_code == 403
assert subscribe(log_in("ana"), "private-account-ana").status_code == 200


# -- after: {# templates/many.html #}

tab = open_as("ana", "many.html")
asked = []
tab.do(lambda page: page.on("request", lambda request: asked.append(request.url)))
names = [f"private-{number}" for number in range(20)]
tab.evaluate(f"{names}.forEach((name) => pusher.subscribe(name))")
tab.has(f"{names}.every((name) => pusher.channel(name).subscribed)")
assert len([url for url in asked if url.endswith("/pusher/auth")]) == 1


# -- after: const room = pusher.subscribe("presence-room-7");

assert channel_data(subscribe(log_in("ana"), "presence-room-7")) == {
    "user_id": "ana",
    "name": "Ana",
    "user_info": {"name": "Ana"},
}
ana = open_as("ana")
ana.has_said("I am Ana and we are 1")
ben = open_as("ben")
ben.has_said("I am Ben and we are 2")
ben.has_said("ana Ana")
ana.has_said("Ben came")


# -- after: room.bind("client-typing", (data, { user_id }) => console.log(user_id, "is typing"));

ana, ben = open_as("ana"), open_as("ben")
for tab in (ana, ben):
    tab.has("room.subscribed")
ben.evaluate("isTyping()")
ana.has_said("ben is typing")
ben.close()
ana.has_said("Ben left")


# -- after: python -c "import base64, os; print(base64.b64encode(os.urandom(32)).decode())"

project.run_line(f"export FLASK_PUSHER_ENCRYPTION_MASTER_KEY_BASE64={printed.strip()}")
project.load()


# -- after: {# templates/ward.html #}

answer = subscribe(log_in("ana"), "private-encrypted-ward")
assert answer.json.keys() == {"auth", "shared_secret"}
with recording() as events:
    assert anybody().post("/diagnosis").status_code == 204
assert [(event.channels, event.data) for event in events] == [
    (["private-encrypted-ward"], {"text": "measles"})
]
tab = open_as("ana", "ward.html")
tab.has("ward.subscribed")
assert post("/diagnosis").status_code == 204
tab.has_said("measles")


# -- after: const prices = pusher.subscribe("cache-prices");

open_as("ana").has_said("no price yet")
assert post("/price").status_code == 204
open_as("ana").has_said("tea costs 2.4")
