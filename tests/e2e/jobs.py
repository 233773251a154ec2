"""Jobs for Celery's workers and for RQ's, that publish: the settings are FLASK_PUSHER_*."""

from __future__ import annotations

import os
import time

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


@celery.task(name="tell", ignore_result=True)  # type: ignore[untyped-decorator]
def tell_in_celery() -> None:
    with app.app_context():
        pusher.trigger("jobs", "told-0", {}, wait=False)
        time.sleep(0.5)  # it is under way, and the next one waits for its answer
        pusher.trigger("jobs", "told-1", {}, wait=False)
