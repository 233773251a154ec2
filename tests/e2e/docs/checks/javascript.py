# What the examples of docs/javascript.rst come to.

# -- after: # options.py

import options
from flask import render_template_string

with options.app.test_request_context():
    given = json.loads(render_template_string("{{ pusher_options()|tojson }}"))
assert given["cluster"] == "eu"
assert given["activityTimeout"] == 30_000
assert given["channelAuthorization"]["endpoint"] == "/pusher/auth"
assert given["channelAuthorization"]["headers"] == {"X-Page": "orders"}
assert given["userAuthentication"]["endpoint"] == "/pusher/user-auth"


# -- after: {# templates/cdn.html #}

open_as("ana", "cdn.html").has("pusher.connection.state == 'connected'")


# -- after: from flask import make_response, render_template

tab = open_tab("/strict")
tab.has("pusher.channel('greetings').subscribed")
assert post("/wave").status_code == 204
tab.has_said("the server")
assert not [line for line in tab.said if "Content Security Policy" in line]


# -- after: npx esbuild src/main.js --bundle --outfile=static/page.js

project.load()
tab = open_as("ana", "static.html")
project.wait_for_subscriber("greetings")
assert post("/wave").status_code == 204
tab.has_said("bundled: the server")


# -- after: from flask import render_template_string

said = anybody().get("/pusher.json").json
assert said["key"] == "any-key"
assert said["options"]["wsPort"] == 6001


# -- after: from itertools import count

tab = open_as("ana", "htmx.html")
tab.has("greetings.subscribed")
assert post("/wave").status_code == 204
tab.shows("1 seen")


# -- after: @pusher.auth

tab = open_as("ana", "axios.html")
tab.evaluate("pusher.subscribe('private-orders')")
tab.has("pusher.channel('private-orders').subscribed")
