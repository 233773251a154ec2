# What the examples of README.rst come to.

# -- after: <title>Orders</title>

tab = open_tab("/orders")
tab.has("""document.querySelector('[data-pusher-state="live"]')""")
tab.shows("Order 7 is paid")
assert post("/orders/7/ship").status_code == 200  # where it led
tab.shows("Order 7 is shipped")


# -- after: curl --data name=Terminal http://127.0.0.1:5000/wave

first, second = open_tab(), open_tab()
first.shows("Terminal waves")
for tab in (first, second):
    tab.has("""document.querySelector('#waves[data-pusher-state="live"]')""")
second.fill("Your name", "Ben")
second.press("Wave")
first.shows("Ben waves")
second.shows("Ben waves")


# -- after: export FLASK_PUSHER_JS_URL=/static/node_modules/pusher-js/dist/web/pusher.min.js

project.load()
asked = []
first = open_tab()
first.do(lambda page: page.on("request", lambda request: asked.append(request.url)))
first.do(lambda page: page.reload())
first.has("""document.querySelector('[data-pusher-state="live"]')""")
assert sum("/static/node_modules/" in url for url in asked) == 2
assert not any("jsdelivr" in url for url in asked)
