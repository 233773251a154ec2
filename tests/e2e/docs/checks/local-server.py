# What the examples of docs/local-server.rst come to.

# -- after: flask pusher serve --webhooks http://127.0.0.1:5000

assert "It posts webhooks to http://127.0.0.1:5000/pusher/events." in printed


# -- after: openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=localhost \

address = "https://127.0.0.1:" + project.terminal.env["FLASK_PUSHER_PORT"]
assert requests.get(address, verify=project.folder / "cert.pem", timeout=30).ok
