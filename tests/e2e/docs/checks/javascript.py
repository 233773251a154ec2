# What the examples of docs/javascript.rst come to.

# -- after: flask pusher trigger greetings hello '{"from": "The terminal"}'

tab = open_tab()
tab.has("greetings.subscribed")
project.run_line("""flask pusher trigger greetings hello '{"from": "The terminal"}'""")
tab.shows("The terminal says hello")


# -- after: {# templates/beside.html #}

tab = open_as("ana", "beside.html")
project.wait_for_subscriber("greetings")
say_hello()
tab.has_said("The server was heard")
assert tab.evaluate("Pusher.instances.length") == 1


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


# -- after: from flask import make_response, render_template

tab = open_tab("/strict")
tab.has("pusher.channel('greetings').subscribed")
say_hello()
tab.has_said("The server")
assert not [line for line in tab.said if "Content Security Policy" in line]


# -- after: npx esbuild src/main.js --bundle --outfile=static/page.js

project.load()
tab = open_as("ana", "static.html")
project.wait_for_subscriber("greetings")
say_hello()
tab.has_said("bundled: The server")


# -- after: from flask import render_template_string

said = anybody().get("/pusher.json").json
assert said["key"] == "any-key"
assert said["options"]["wsPort"] == 6001


# -- after: @pusher.auth

tab = open_as("ana", "axios.html")
tab.evaluate("pusher.subscribe('private-orders')")
tab.has("pusher.channel('private-orders').subscribed")
