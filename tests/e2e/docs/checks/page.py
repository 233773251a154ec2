# What the examples of docs/page.rst come to.

# -- after: def shop():

tab = open_tab("/shop")
tab.has("""document.querySelector('#orders[data-pusher-state="live"]')""")
assert post("/shop/2").status_code == 200  # where it led
tab.shows("2: shipped")


# -- after: <title>Room {{ room }}</title>

ana, ben = open_tab("/rooms/7?user=ana"), open_tab("/rooms/7?user=ben")
for tab in (ana, ben):
    tab.has("""document.querySelector("b").textContent === "2" """)
    tab.has("""[...document.querySelectorAll("li")].map((li) => li.textContent).sort().join() === "Ana,Ben" """)


# -- after: <title>HTMX</title>

tab = open_as("ana", "htmx.html")
tab.shows("1: paid")
assert post("/shop/1").status_code == 200
tab.shows("1: shipped")


# -- after: <title>Alpine</title>

tab = open_as("ana", "alpine.html")
tab.shows("Quiet")
tab.has("""document.querySelector('[data-pusher-state="live"]')""")
say_hello()
tab.shows("The server says hello")


# -- after: def add_order():

tab = open_tab("/shop")
tab.has("""document.querySelector('#orders[data-pusher-state="live"]')""")
assert post("/orders/new").status_code == 200
tab.shows("3: paid")


# -- after: <title>A map</title>

tab = open_as("ana", "map.html")
tab.has_said("drawn: true")
tab.said.clear()
assert post("/shop/2").status_code == 200
tab.has_said("drawn: true")
