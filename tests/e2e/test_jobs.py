"""What jobs defer and trigger, in workers of Celery's and RQ's over a real Redis."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from redis import Redis as Client
from rq import Queue

from .servers import Redis, settings_for
from .test_production import wait_until
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


@pytest.fixture(autouse=True)
def nothing_is_queued(redis: Redis) -> None:
    with Client(port=redis.port) as connection:
        connection.flushall()


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
        queue = Queue(connection=connection)
        for number in (1, 2):
            queue.enqueue(job, number)
    worker = [sys.executable, "-m", "rq.cli", "worker", "--burst"]
    subprocess.run(worker, cwd=HERE, env=environ(api, redis, **more), check=True, timeout=60)
    assert set(api.names) <= set(published)
    if not more:
        assert api.names == published


@contextmanager
def running_celery(env: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "--app", "jobs.celery", "worker", "--concurrency=1"]
    worker = subprocess.Popen(command, cwd=HERE, env=env, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(60)


def have_done(task: str, env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", f"import jobs; {task}"], cwd=HERE, env=env, check=True)


def test_a_task_of_celery_publishes_when_its_context_ends(api: Api, redis: Redis) -> None:
    env = environ(api, redis)
    with running_celery(env):
        for number in (1, 2):
            have_done(f"jobs.report_in_celery.delay({number})", env)
        api.names_until("2-done")
    assert api.names == NAMES


def test_a_worker_of_celery_that_is_stopped_sends_what_waits(api: Api, redis: Redis) -> None:
    env = environ(api, redis)
    with ExitStack() as silence:
        silence.enter_context(api.silent())
        with running_celery(env):
            have_done("jobs.tell_in_celery.delay()", env)
            api.names_until("told-0")
            time.sleep(1)
            assert api.names == ["told-0"]
            threading.Timer(1, silence.close).start()
    assert api.names == ["told-0", "told-1"]


def test_where_nobody_listens_a_worker_of_celery_tries_again_and_a_job_of_rq_is_over(
    api: Api, redis: Redis
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    env = {**environ(api, redis), "FLASK_PUSHER_PORT": str(port)}
    with Client(port=redis.port) as connection:
        Queue(connection=connection).enqueue("jobs.report", 2)
        worker = [sys.executable, "-m", "rq.cli", "worker", "--burst"]
        subprocess.run(worker, cwd=HERE, env=env, check=True, timeout=60)
        with running_celery(env):
            have_done("jobs.report_in_celery.delay(1)", env)
            wait_until(lambda: connection.llen("celery") == 0)
            time.sleep(2)  # the task is over
            found = Api(port)
            try:
                found.names_until("1-done")
            finally:
                found.stop()
    assert found.names == [name for name in NAMES if name.startswith("1-")]
