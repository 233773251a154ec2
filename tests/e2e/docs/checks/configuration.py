# What the examples of docs/configuration.rst come to.

# -- first

from _flask_pusher.settings import TABLE, URL

defaults = {row.key: row.default for row in (URL, *TABLE)}
rows = {key: default for key, default, _meaning in table_in("docs/configuration.rst")}
assert rows.keys() == defaults.keys()
computed = {"PUSHER_HOST", "PUSHER_PORT", "PUSHER_SSL", "PUSHER_BACKEND"}
for key in rows.keys() - computed:
    if rows[key] in ("required", "not set"):
        assert not defaults[key], key
    else:
        assert rows[key] == str(defaults[key]), key
client = new_app(type(pusher)()).extensions["pusher"]
assert rows["PUSHER_HOST"] == client.host
assert rows["PUSHER_PORT"] == str(client.port)
assert rows["PUSHER_SSL"] == str(client.ssl)
for key in [key for key, default in rows.items() if default == "required"]:
    with pytest.raises(ValueError, match=key):
        new_app(type(pusher)(), **{key: None})


# -- after: export FLASK_PUSHER_APP_ID=1234

project.load()
client = project.app.extensions["pusher"]
assert (client.app_id, client.key, client.secret) == ("1234", "12e45", "my-secret")
assert client.timeout == 2.5
assert project.app.config["PUSHER_CLIENT_OPTIONS"] == {"activityTimeout": 30000}
with pytest.raises(ValueError, match="PUSHER_KEY"):
    new_app(type(pusher)(), PUSHER_KEY=12e45)

import os

os.environ["PUSHER_URL"] = "https://a-key:a-secret@api-eu.pusher.com/apps/7"


# -- after: # heroku.py

import heroku
import os

del os.environ["PUSHER_URL"]
client = heroku.app.extensions["pusher"]
assert (client.app_id, client.key, client.secret) == ("7", "a-key", "a-secret")
assert (client.host, client.port, client.ssl) == ("api-eu.pusher.com", 443, True)


# -- after: # own_server.py

import own_server
from flask import render_template_string

client = own_server.app.extensions["pusher"]
assert (client.host, client.port, client.ssl) == ("channels.internal", 6001, False)
with own_server.app.test_request_context():
    options = json.loads(render_template_string("{{ pusher_options()|tojson }}"))
assert options["wsHost"] == "channels.example.com"
assert options["wssPort"] == 443
assert options["forceTLS"] is True


# -- after: # quiet.py

import quiet

with quiet.app.app_context():
    quiet.pusher.trigger("news", "flash", {"text": "Rain"})


# -- after: # shop.py

import shop

needed = {"PUSHER_APP_ID": "1", "PUSHER_SECRET": "a-secret"}
for key in ("first", "second"):
    app = shop.create_app(PUSHER_KEY=key, **needed)
    answer = subscribe(app.test_client(), "private-a")
    assert answer.json["auth"].startswith(f"{key}:")
with pytest.raises(RuntimeError):
    shop.pusher.init_app(app)
with pytest.raises(RuntimeError):
    type(shop.pusher)(app)
