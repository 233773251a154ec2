"""What jobs defer and trigger, in workers of Celery's and RQ's over a real Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis as Client
from rq import Queue

from .servers import Redis, settings_for
from .test_publishing_servers import Api
from .tools import HERE

NAMES = [
    f"{number}-{what}" for number in (1, 2) for what in ("step-0", "step-1", "step-2", "done")
]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stop()


def environ(api: Api, redis: Redis, **more: str) -> dict[str, str]:
    url = f"redis://127.0.0.1:{redis.port}"
    return {**os.environ, **settings_for(api.port), "REDIS_URL": url, "RQ_REDIS_URL": url, **more}


@pytest.mark.parametrize(
    ("job", "more", "published"),
    [
        ("jobs.report", {}, NAMES),
        # A context that was pushed at import never ends, and RQ leaves the process without a word.
        (
            "jobs.report_anywhere",
            {"PUSHES_ONE": "yes"},
            [name for name in NAMES if "done" not in name],
        ),
    ],
)
def test_a_job_of_rq_publishes_when_its_context_ends(
    api: Api, redis: Redis, job: str, more: dict[str, str], published: list[str]
) -> None:
    with Client(port=redis.port) as connection:
        connection.flushall()
        queue = Queue(connection=connection)
        for number in (1, 2):
            queue.enqueue(job, number)
    worker = [sys.executable, "-m", "rq.cli", "worker", "--burst"]
    subprocess.run(worker, cwd=HERE, env=environ(api, redis, **more), check=True, timeout=60)
    assert set(api.names) <= set(published)
    if not more:
        assert api.names == published


def test_a_task_of_celery_publishes_when_its_context_ends(api: Api, redis: Redis) -> None:
    with Client(port=redis.port) as connection:
        connection.flushall()
    env = environ(api, redis)
    command = [sys.executable, "-m", "celery", "--app", "jobs.celery", "worker", "--concurrency=1"]
    worker = subprocess.Popen(command, cwd=HERE, env=env, stderr=subprocess.DEVNULL)
    try:
        for number in (1, 2):
            script = f"import jobs; jobs.report_in_celery.delay({number})"
            subprocess.run([sys.executable, "-c", script], cwd=HERE, env=env, check=True)
        api.names_until("2-done")
    finally:
        worker.terminate()
        worker.wait(60)
    assert api.names == NAMES
