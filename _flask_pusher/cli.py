"""``flask pusher``: the group whose commands ``commands.py`` has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from flask.cli import AppGroup

if TYPE_CHECKING:
    from click import Command, Context


class Commands(AppGroup):
    """Pusher Channels: look at it, publish, run a local server."""

    # Imported when a command is asked for, which an application that is served never does.

    def list_commands(self, _: Context) -> list[str]:
        from _flask_pusher.commands import COMMANDS

        return sorted(COMMANDS.commands)

    def get_command(self, _: Context, name: str) -> Command | None:
        from _flask_pusher.commands import COMMANDS

        return COMMANDS.commands.get(name)


def give_commands(app: Flask) -> None:
    """``flask pusher``, unless the application has a command of this name itself."""
    app.cli.commands.setdefault("pusher", Commands("pusher", help=Commands.__doc__))
