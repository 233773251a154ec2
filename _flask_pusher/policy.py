"""What an answer of the service means for the events of its call. Every path asks here.

==============================================  ================================================
the answer                                      its events
==============================================  ================================================
200                                             are published
400, 413                                        are sent singly; the refused one is lost
404                                             of a batch: are sent singly, as all that follow;
                                                of a single event: as 401
401, 402, 403                                   are lost, with all that waits for the application
nobody took it; 429                             are tried again, together
it broke before the answer; 5xx                 are tried again, from the second failure on singly,
                                                so that a bad one takes no other along
a timeout, anything else                        are lost
==============================================  ================================================

What is tried again waits for a pause that doubles from 0.1 to 2 s, and at least for
``Retry-After``; where that is longer than an event has left, it is lost.
"""

from __future__ import annotations

from typing import NamedTuple

from _flask_pusher.transport import NoAnswer, retry_after_of, status_of

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

_OF_AN_EVENT = (400, 413)
_OF_THE_APPLICATION = (401, 402, 403, 404)


class Verdict(NamedTuple):
    """What becomes of an event whose call was not answered with 200."""

    is_lost: bool = True
    pause: float = 0.0
    """How many seconds to wait until it is tried again."""
    is_alone: bool = False
    """Whether it is to be the only one of its next calls."""
    takes_all_along: bool = False
    """Whether all that waits for the application is lost with it."""


def judge(error: BaseException, *, of_batch: bool, tries: int, left: float) -> Verdict:
    """What becomes of an event.

    :param of_batch: whether the call had several events.
    :param tries: how many calls the event was in, this one included.
    :param left: for how many seconds it may still be tried.
    """
    if of_batch and (is_refusal_of_an_event(error) or knows_no_batches(error)):
        return Verdict(is_lost=False, is_alone=True)
    if status_of(error) in _OF_THE_APPLICATION:
        return Verdict(takes_all_along=True)
    pause = max(pause_after(tries), retry_after_of(error))
    timed_out = isinstance(error, NoAnswer) and error.timed_out
    if timed_out or not is_outage(error) or pause > left:
        return Verdict()
    return Verdict(is_lost=False, pause=pause, is_alone=tries > 1 and may_be_of_an_event(error))


def is_outage(error: BaseException) -> bool:
    """Whether the service does not answer at present, or puts off what it is sent."""
    status = status_of(error)
    return isinstance(error, NoAnswer) or (status is not None and (status == 429 or status >= 500))


def may_be_of_an_event(error: BaseException) -> bool:
    """Whether an outage may be the fault of an event, and says nothing of the service then."""
    return error.broke if isinstance(error, NoAnswer) else status_of(error) != 429


def knows_no_batches(error: BaseException) -> bool:
    """Whether the address is to be sent no batches, where this answered one."""
    return status_of(error) == 404


def pause_after(failures: int) -> float:
    """How many seconds to wait after so many failures in a row."""
    return float(min(FIRST_PAUSE * 2 ** min(failures - 1, 9), LONGEST_PAUSE))


def is_refusal_of_an_event(error: BaseException) -> bool:
    """Whether no other event would be answered so, and this one always."""
    return status_of(error) in _OF_AN_EVENT
