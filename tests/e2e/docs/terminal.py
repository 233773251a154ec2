"""A reader's terminal: what the examples for the shell are typed into."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask

from flask_pusher import Pusher

from .. import WAIT_SECONDS
from . import TREE

COMMAND_SECONDS = 300
# What a server prints when it is ready, and where it is.
SERVERS = {
    "flask pusher serve": r"shown at https?://[^:]+:(?P<port>\d+)/",
    "flask run": r"Running on (?P<site>http://\S+)",
    "gunicorn": r"Listening at: (?P<site>http://\S+)",
}
# The ports that are printed may be in use, and a busy machine may not answer in five seconds.
ANY_PORT = {
    "FLASK_PUSHER_TIMEOUT": str(WAIT_SECONDS),
    "FLASK_PUSHER_SERVE_PORT": "0",
    "FLASK_RUN_PORT": "0",
    "GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0",
}


class Terminal:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**environment(), **ANY_PORT}
        self.printed = ""
        """What the last command printed."""
        self.site: str | None = None
        """Where a command serves the application, if one does."""
        self._running = ExitStack()

    def run_line(self, line: str) -> None:
        words = shlex.split(line)
        if words[0] == "export":
            for name, _, value in (word.partition("=") for word in words[1:]):
                self.env[name] = value
        elif "tox" in words:
            check_tox(words)
        elif words[:2] == ["pip", "install"]:
            check_requirements(words[2:])
        elif server := next((name for name in SERVERS if line.startswith(name)), None):
            self.start_server(words, SERVERS[server])
        else:
            self.run("sh", "-ec", line)

    def run(self, *command: str) -> None:
        """Run a command that must succeed."""
        finished = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        self.printed = finished.stdout
        assert finished.returncode == 0, f"{command}: {finished.stdout}"

    def start_server(self, words: Sequence[str], ready: str) -> None:
        """Start a server, which runs until the page ends, and wait until it is ready."""
        process = subprocess.Popen(
            [shutil.which(words[0], path=self.env["PATH"]) or words[0], *words[1:]],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        self._running.enter_context(process)
        self._running.callback(process.terminate)
        killer = threading.Timer(WAIT_SECONDS, process.kill)
        killer.start()
        self.printed = ""
        for line in process.stdout:
            self.printed += line
            if found := re.search(ready, line):
                break
        else:
            pytest.fail(f"{words} ended: {self.printed}")
        killer.cancel()
        # It goes on printing, and is not to wait for a reader.
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        self._running.callback(reader.join)
        self._running.callback(process.terminate)
        where = found.groupdict()
        self.site = where.get("site", self.site)
        if "port" in where:
            self.env["FLASK_PUSHER_PORT"] = where["port"]

    def close(self) -> None:
        self._running.close()


def environment() -> dict[str, str]:
    """This process's, with the commands of its Python first, and without settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASK_", "PUSHER_", "COV_"))
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1"}


def check_requirements(requirements: Sequence[str]) -> None:
    """What is to be installed exists: it is installed here."""
    for requirement in requirements:
        named = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?", requirement)
        assert named, requirement
        metadata = importlib.metadata.metadata(named[1])
        assert metadata["Name"] == named[1]
        extras = set(filter(None, (named[2] or "").split(",")))
        assert extras <= set(metadata.get_all("Provides-Extra", []))


def check_tox(words: Sequence[str]) -> None:
    """tox has the environments it is told to run, tests the files, and the settings are good."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(TREE / "tox.ini")
    settings = dict(word.split("=", 1) for word in words[: words.index("tox")] if "=" in word)
    if any(name.startswith("PUSHER_") for name in settings):
        app = Flask("app")
        app.config.update(settings)
        Pusher(app)
    if "-e" not in words:
        assert " ".join(words) in (TREE / ".ci" / "run").read_text(encoding="utf-8")
        return
    for name in words[words.index("-e") + 1].split(","):
        assert f"testenv:{name}" in tox or re.fullmatch(r"py3\d+-latest", name), name
    tests = [TREE / word for word in words if word.startswith("tests/")]
    assert all(test.exists() for test in tests), tests
    if "-k" in words:
        (test,) = tests
        files = test.rglob("*.py") if test.is_dir() else [test]
        assert any(words[words.index("-k") + 1] in file.read_text("utf-8") for file in files)
