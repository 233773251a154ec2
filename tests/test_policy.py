"""The policy: what an answer of the service means for the events of its call."""

from __future__ import annotations

from typing import Any

import pytest
from pusher.errors import PusherError

from _flask_pusher import policy
from _flask_pusher.policy import Verdict
from flask_pusher import NoAnswer

LOST = Verdict()
SINGLY = Verdict(is_lost=False, is_alone=True)
ALL_LOST = Verdict(takes_all_along=True)


def refusal(status: int | None, retry_after: float = 0.0) -> PusherError:
    error = PusherError("no")
    error.status, error.retry_after = status, retry_after
    return error


def no_answer(**how: bool) -> NoAnswer:
    error = NoAnswer("silence")
    for name, value in how.items():
        setattr(error, name, value)
    return error


def judge(error: BaseException, **how: Any) -> Verdict:
    return policy.judge(error, **{"of_batch": False, "tries": 1, "left": 30.0, **how})


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_batch_is_sent_singly_and_a_refused_event_is_lost(status: int) -> None:
    assert judge(refusal(status), of_batch=True) == SINGLY
    assert judge(refusal(status), of_batch=True, left=-1.0) == SINGLY
    assert judge(refusal(status)) == LOST


def test_an_address_that_knows_no_batches_is_sent_single_events_and_else_nothing() -> None:
    assert judge(refusal(404), of_batch=True) == SINGLY
    assert policy.knows_no_batches(refusal(404))
    assert not policy.knows_no_batches(refusal(400))
    assert judge(refusal(404)) == ALL_LOST


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("of_batch", [False, True])
def test_a_refusal_of_the_application_takes_all_along(status: int, of_batch: bool) -> None:
    assert judge(refusal(status), of_batch=of_batch) == ALL_LOST


@pytest.mark.parametrize("error", [no_answer(), refusal(429)])
def test_what_nobody_took_is_tried_again_together_with_growing_pauses(error: Exception) -> None:
    verdicts = [judge(error, tries=tries) for tries in range(1, 8)]
    assert [round(one.pause, 1) for one in verdicts] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert not any(one.is_lost or one.is_alone for one in verdicts)
    assert judge(error, tries=10_000).pause == 2.0


@pytest.mark.parametrize("error", [no_answer(broke=True), refusal(500), refusal(503)])
def test_what_may_be_an_events_fault_is_tried_again_singly_from_the_second_time_on(
    error: Exception,
) -> None:
    assert judge(error, tries=1) == Verdict(is_lost=False, pause=0.1)
    assert judge(error, tries=2) == Verdict(is_lost=False, pause=0.2, is_alone=True)


@pytest.mark.parametrize("error", [no_answer(timed_out=True), refusal(405), refusal(None)])
def test_a_timeout_and_anything_else_is_lost(error: Exception) -> None:
    assert judge(error) == LOST
    assert judge(SystemExit()) == LOST


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for_and_where_too_little_time_is_left_the_event_is_lost(
    status: int,
) -> None:
    assert judge(refusal(status, 7.5)).pause == 7.5
    assert judge(refusal(status, 7.5), left=7.0) == LOST
    assert judge(refusal(status), left=0.05) == LOST


def test_an_outage_is_no_answer_or_one_that_puts_off() -> None:
    outages = [no_answer(), no_answer(timed_out=True), refusal(429), refusal(503)]
    assert all(map(policy.is_outage, outages))
    assert not any(map(policy.is_outage, [refusal(400), refusal(403), refusal(None), KeyError()]))


def test_an_outage_may_be_an_events_fault_unless_nobody_took_it() -> None:
    assert policy.may_be_of_an_event(refusal(500))
    assert policy.may_be_of_an_event(no_answer(broke=True))
    assert not policy.may_be_of_an_event(refusal(429))
    assert not policy.may_be_of_an_event(no_answer())
