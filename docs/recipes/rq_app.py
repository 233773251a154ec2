"""Events that wait in Redis, and that an RQ worker publishes.

Once a request is answered, its events outlive the web server, the worker and the service: all that
must go on is Redis. See it, with the credentials of your Channels app::

    pip install Flask-Pusher rq
    export FLASK_PUSHER_APP_ID=... FLASK_PUSHER_KEY=... FLASK_PUSHER_SECRET=... \
        FLASK_PUSHER_CLUSTER=...
    redis-server &
    flask --app rq_app run &
    curl --request POST http://127.0.0.1:5000/orders/7/ship
    kill -9 %2
    rq worker --serializer json --with-scheduler --maintenance-interval 30 events

The web server is dead before there is a worker. The event arrives when the worker starts.
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from redis import Redis
from rq import Queue, Retry

from flask_pusher import Pusher

app = Flask(__name__)
app.config.from_prefixed_env()
pusher = Pusher(app)

redis = Redis.from_url(
    os.environ.get("RQ_REDIS_URL", "redis://127.0.0.1:6379"),
    # Without Redis, requests do not wait for it: the publisher takes their events.
    socket_connect_timeout=1,
    socket_timeout=5,
)
queue = Queue("events", connection=redis, serializer="json")
# In seconds, for about two hours. With fewer than the tries, RQ repeats the first. All tasks outlive
# their worker but one that is killed in the instant in which it puts off the next try.
pauses = [1, 2, 4, 8, 16, 32, *[60] * 120]


def publish(calls: list[dict[str, Any]]) -> None:
    with app.app_context():
        pusher.publish(calls)


@pusher.hand_over
def enqueue(calls: list[dict[str, Any]]) -> None:
    again = Retry(max=len(pauses), interval=pauses)
    with redis.pipeline() as pipeline:  # all that RQ writes, in one go
        queue.enqueue(publish, calls, retry=again, result_ttl=0, pipeline=pipeline)
        pipeline.execute()


@app.post("/orders/<int:order_id>/ship")
def ship(order_id: int) -> dict[str, int]:
    pusher.defer("orders", "shipped", {"order": order_id})
    return {"shipped": order_id}
