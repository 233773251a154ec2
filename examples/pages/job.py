"""A job that tells how far it is, each time that it has got further."""

from __future__ import annotations

import threading
import time
from uuid import uuid4

from flask import Flask, abort, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_object("settings")
app.config.from_prefixed_env()
pusher = Pusher(app)
done: dict[str, int] = {}  # per cent, of each job


@pusher.auth("private-job-<job>")
def may_watch(channel_name: str, socket_id: str, job: str) -> bool:
    return job in done  # nobody guesses its number


def work(job: str) -> None:
    """In place of a task of a queue's."""
    with app.app_context():
        for percent in range(10, 101, 10):
            time.sleep(0.1)
            done[job] = percent
            # Now, and not when the job is over; and a service that is down does not stop it.
            pusher.trigger(f"private-job-{job}", "progress", {}, wait=False)


@app.get("/")
def index() -> str:
    return render_template("job.html", job=None)


@app.post("/jobs")
def start() -> ResponseReturnValue:
    job = uuid4().hex
    done[job] = 0
    threading.Thread(target=work, args=[job]).start()
    return redirect(url_for("show", job=job))


@app.get("/jobs/<job>")
def show(job: str) -> str:
    if job not in done:
        abort(404)
    return render_template("job.html", job=job, percent=done[job])
