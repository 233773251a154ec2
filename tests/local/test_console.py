"""What is printed and logged. That nothing waits for a reader, test_lifecycle.py proves."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading

import pytest

from _flask_pusher.local import console as console_room
from _flask_pusher.local.console import Console, ignore, log
from _flask_pusher.local.printable import printable
from _flask_pusher.local.state import Happening


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("plain é", "plain é"),
        ("\x1b[2J\n\u202e", "\\x1b[2J\\n\\u202e"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 300 + "..."),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_came_from_the_network_is_one_harmless_line(text: str, printed: str) -> None:
    assert printable(text) == printed


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("refused", logging.WARNING),
        ("warning", logging.WARNING),
        ("undelivered", logging.WARNING),
        ("event", logging.INFO),
        ("webhook", logging.INFO),
    ],
)
def test_what_went_wrong_is_logged_as_a_warning(
    caplog: pytest.LogCaptureFixture, kind: str, level: int
) -> None:
    error = ValueError("why")
    log(Happening(kind, "\x1b[2Jsomething", error=error))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("flask_pusher.local", level)
    assert record.getMessage() == f"{kind}: \\x1b[2Jsomething"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_event_is_told_with_its_data(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log(Happening("event", "e to news", channel="news", event="e", data='{"n": 1}'))
    log(Happening("webhook", "channel_occupied news", channel="news", data="[]"))
    assert [record.getMessage() for record in caplog.records] == [
        'event: e to news: {"n": 1}',
        "webhook: channel_occupied news",
    ]


def test_a_happening_is_a_line_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.show(Happening("subscribe", "1.1 to news"))
    ignore(Happening("subscribe", "1.1 to sport"))
    console.print("Stopped.")
    console.close()
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d subscribe   1\.1 to news\nStopped\.\n", capsys.readouterr().out
    )


def test_a_terminal_that_cannot_write_a_character_gets_its_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, "ascii", write_through=True))
    console = Console()
    console.print("é")
    console.close()
    assert output.getvalue() == b"\\xe9\n"


def test_without_a_terminal_nothing_is_printed_and_nothing_raised(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console = Console()
    console.print("one")
    console.close()
    assert capfd.readouterr().err == ""


def test_lines_that_nobody_reads_are_counted_and_lost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = threading.Event()
    writing = threading.Event()
    write = console_room._write

    def write_when_read(line: str) -> None:
        writing.set()
        assert reader.wait(20)
        write(line)

    monkeypatch.setattr(console_room, "MAX_WAITING", 2)
    monkeypatch.setattr(console_room, "_write", write_when_read)
    console = Console()
    console.print("0")
    assert writing.wait(20)
    for number in range(1, 6):
        console.print(str(number))
    reader.set()
    console.close()
    assert capsys.readouterr().out.splitlines() == [
        *("0", "1", "2"),
        "3 lines are missing here: they were not read in time.",
    ]
