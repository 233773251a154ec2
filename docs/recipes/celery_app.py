"""Events that wait in Redis, and that a Celery worker publishes.

Once a request is answered, its events outlive the web server, the worker and the service: all that
must go on is Redis. See it, with the credentials of your Channels app::

    pip install Flask-Pusher "celery[redis]"
    export FLASK_PUSHER_APP_ID=... FLASK_PUSHER_KEY=... FLASK_PUSHER_SECRET=... \
        FLASK_PUSHER_CLUSTER=...
    redis-server &
    flask --app celery_app run &
    curl --request POST http://127.0.0.1:5000/orders/7/ship
    kill -9 %2
    celery --app celery_app.celery worker --loglevel INFO

The web server is dead before there is a worker. The event arrives when the worker starts.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from flask import Flask

from flask_pusher import Pusher, PusherError

app = Flask(__name__)
app.config.from_prefixed_env()
pusher = Pusher(app)

celery = Celery(__name__, broker=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
celery.conf.update(
    # A task leaves the queue when it is done, not when it begins, and so outlives its worker: all
    # but one that is killed in the instant in which it takes the task out of Redis.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # Without Redis, requests do not wait for it: the publisher takes their events.
    task_publish_retry=False,
    broker_transport_options={
        "max_retries": 0,
        "socket_connect_timeout": 1,
        "socket_timeout": 5,
        # After so many seconds a task that is not done is another worker's. It must be more than
        # the longest pause between tries, and than a task takes.
        "visibility_timeout": 120,
        "unacked_restore_throttle": 1,
    },
)


@celery.task(
    ignore_result=True,
    autoretry_for=(PusherError,),
    retry_backoff=True,  # after 1, 2, 4, ... seconds
    retry_backoff_max=60,
    retry_jitter=False,
    max_retries=120,  # for two hours
)
def publish(calls: list[dict[str, Any]]) -> None:
    with app.app_context():
        pusher.publish(calls)


@pusher.hand_over
def enqueue(calls: list[dict[str, Any]]) -> None:
    publish.delay(calls)


@app.post("/orders/<int:order_id>/ship")
def ship(order_id: int) -> dict[str, int]:
    pusher.defer("orders", "shipped", {"order": order_id})
    return {"shipped": order_id}
