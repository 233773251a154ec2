"""``flask pusher``: the group whose commands ``commands.py`` has."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask.cli import AppGroup


class Commands(AppGroup):
    """Pusher Channels: look at it, publish, run a local server."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        # Imported when the group is called, which an application that is served never does.
        from _flask_pusher.commands import COMMANDS

        self.commands = COMMANDS.commands
        return super().make_context(*arguments, **options)


def give_commands(app: Flask) -> None:
    """``flask pusher``, unless the application has a command of this name itself."""
    app.cli.commands.setdefault("pusher", Commands("pusher", help=Commands.__doc__))
