"""Starting an application: by this extension, or by Flask, the official client and one view."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from itertools import cycle
from tempfile import TemporaryDirectory

from benchmarks.measuring import Ratio, Report

SECONDS = 50

BY_HAND = """
import flask, pusher
app = flask.Flask("by_hand")
client = app.extensions["pusher"] = pusher.Pusher("1", "a-key", "a-secret")
@app.post("/pusher/auth")
def authorised():
    form = flask.request.form
    return client.authenticate(form["channel_name"], form["socket_id"])
"""
BY_EXTENSION = """
import flask, flask_pusher
app = flask.Flask("by_extension")
app.config.update(PUSHER_APP_ID="1", PUSHER_KEY="a-key", PUSHER_SECRET="a-secret")
flask_pusher.Pusher(app)
"""
TIMED = """
import time
start = time.process_time()
{code}
print(time.process_time() - start)
"""


def seconds_of(code: str, bytecode: str) -> float:
    """The processor's time that the code takes in an interpreter of its own.

    :param bytecode: the folder that compiled modules are kept in, as an installation has them.
    """
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode}
    command = [sys.executable, "-c", TIMED.format(code=code)]
    answer = subprocess.run(
        command, env=environ, check=True, capture_output=True, text=True, timeout=30
    )
    return float(answer.stdout)


def ratio_of_a_pair(order: tuple[str, str], bytecode: str) -> float:
    spent = {code: seconds_of(code, bytecode) for code in order}
    return spent[BY_EXTENSION] / spent[BY_HAND]


def main() -> None:
    report = Report("Start-up: this extension / Flask and the official client by hand")
    deadline = time.monotonic() + SECONDS
    orders = cycle([(BY_HAND, BY_EXTENSION), (BY_EXTENSION, BY_HAND)])
    with TemporaryDirectory() as bytecode:
        ratio_of_a_pair(next(orders), bytecode)  # compiles
        ratios = []
        while time.monotonic() < deadline:
            ratios.append(ratio_of_a_pair(next(orders), bytecode))
    report.ratio("import and init_app", Ratio.of(ratios), 1.05)
    report.exit()


if __name__ == "__main__":
    main()
