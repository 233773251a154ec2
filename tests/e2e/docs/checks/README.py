# What the examples of README.rst come to.

# -- after: pusher.subscribe("orders").bind("shipped", (data) => {

tab = open_tab()
tab.has("pusher.channel('orders').subscribed")
assert post("/orders/7/ship").status_code == 204
tab.has_said("Order 7 is on its way")


# -- after: flask pusher trigger greetings wave '{"from": "the terminal"}'

first, second = open_tab(), open_tab()
first.press("Wave")
second.shows("A wave from the server")
project.run_line("""flask pusher trigger greetings wave '{"from": "the terminal"}'""")
first.shows("A wave from the terminal")
second.shows("A wave from the terminal")
