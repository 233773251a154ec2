"""A Channels server in this process, for development and tests; of the extra ``local``."""

from __future__ import annotations

from typing import Any


def local_server(app: Any, host: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
    """Start a Channels server for an application, in a background thread."""
    from flask_pusher_local import start

    return start(app, host, port, **options)


def serve(app: Any, certificate: Any = None, private_key: Any = None, **options: Any) -> None:
    """Run a Channels server for an application until Ctrl-C or SIGTERM."""
    from flask_pusher_local import serve as serve_here

    serve_here(app, **options)


def __getattr__(name: str) -> Any:
    import flask_pusher_local

    return getattr(flask_pusher_local, name)
