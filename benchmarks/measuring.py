"""Compares two ways to do a thing so that a noisy machine changes little, and judges the ratios."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

Action = Callable[[], object]
Clock = Callable[[], float]


class Ratio(NamedTuple):
    """The middle of many ratios, and the two that half of them lie between."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Ratio:
        lower, median, upper = statistics.quantiles(values, n=4)
        return cls(median, lower, upper)


def compare(
    base: Action,
    ours: Action,
    *,
    seconds: float,
    clock: Clock = time.thread_time,
) -> Ratio:
    """How much longer ``ours`` takes than ``base``, as the ratios of many short rounds.

    A round is ABBA and then BAAB: what the machine does meanwhile, it does to both, and what it
    costs to begin, each pays once. The rounds are so short that other programs disturb few of them,
    and the median leaves those out.

    :param seconds: how long to go on.
    :param clock: by default the time that this thread has had the processor, which does not pass
        while another program has it.
    """

    def ratio_of_a_round() -> float:
        spent = {base: 0.0, ours: 0.0}
        for order in ((base, ours, ours, base), (ours, base, base, ours)):
            gc.collect(0)
            for action in order:
                start = clock()
                action()
                spent[action] += clock() - start
        return spent[ours] / spent[base]

    with _steady():
        return Ratio.of(_until(time.monotonic() + seconds, ratio_of_a_round))


def _until(deadline: float, measure: Callable[[], float]) -> Iterator[float]:
    """Measure until then, and the five times at least that make a median and a spread."""
    done = 0
    while done < 5 or time.monotonic() < deadline:
        yield measure()
        done += 1


@contextmanager
def _steady() -> Iterator[None]:
    """Let no garbage collection begin in the part that happens to be measured then."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Report:
    """Prints what was measured, and knows whether a bound was missed."""

    def __init__(self, title: str) -> None:
        self.failed = False
        print(f"\n{title}\n{'=' * len(title)}")

    def ratio(
        self, what: str, ratio: Ratio, bound: float | None = None, *, least: float | None = None
    ) -> None:
        spread = f"{ratio.lower:.3f} to {ratio.upper:.3f}"
        self._line(what, f"{ratio.median:.3f}", spread, ratio.median, bound, least)

    def number(self, what: str, number: float, bound: float | None = None) -> None:
        self._line(what, f"{number:g}", "", number, bound)

    def fact(self, what: str, holds: bool) -> None:
        """Something that is so or not: no bound, but as binding."""
        self.failed |= not holds
        print(f"{what:58}{'yes' if holds else 'NO'}", flush=True)

    def _line(
        self,
        what: str,
        value: str,
        spread: str,
        number: float,
        most: float | None,
        least: float | None = None,
    ) -> None:
        missed = (most is not None and number > most) or (least is not None and number < least)
        self.failed |= missed
        limit = "" if most is None else f"at most {most:g}"
        limit = limit if least is None else f"at least {least:g}"
        verdict = f"{limit} MISSED" if missed else limit
        print(f"{what:58}{value:>8}  {spread:16}  {verdict}".rstrip(), flush=True)

    def exit(self) -> None:
        sys.exit(1 if self.failed else 0)
