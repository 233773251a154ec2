"""Jobs for Celery's workers and for RQ's, that publish: the settings are FLASK_PUSHER_*."""

from __future__ import annotations

import os

from celery import Celery
from flask import Flask

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_prefixed_env()
pusher = Pusher(app)
celery = Celery(__name__, broker=os.environ["REDIS_URL"])
if "PUSHES_ONE" in os.environ:
    app.app_context().push()


def report(number: int) -> None:
    with app.app_context():
        report_anywhere(number)


def report_anywhere(number: int) -> None:
    for step in range(3):
        pusher.trigger("jobs", f"{number}-step-{step}", {}, wait=False)
    pusher.defer("jobs", f"{number}-done", {})


@celery.task(name="report", ignore_result=True)  # type: ignore[untyped-decorator]
def report_in_celery(number: int) -> None:
    report(number)
