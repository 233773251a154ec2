"""The map in CONTRIBUTING.rst is true: each room is on it, and imports only rooms below."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "_flask_pusher"


def rooms_on_the_map() -> list[str]:
    """The rooms in the map's order, highest first."""
    return re.findall(
        r"^   \* - ``([\w/]+?)(?:\.py|/)``$", (ROOT / "CONTRIBUTING.rst").read_text(), re.MULTILINE
    )


def rooms_in_the_house() -> set[str]:
    names = {path.stem for path in HOUSE.glob("*.py")} - {"__init__"}
    return names | {path.parent.name for path in HOUSE.glob("*/__init__.py")}


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def files_of(room: str) -> list[Path]:
    folder = HOUSE / room
    return sorted(folder.glob("*.py")) if folder.is_dir() else [HOUSE / f"{room}.py"]


def test_each_room_is_on_the_map_once() -> None:
    assert sorted(rooms_on_the_map()) == sorted(rooms_in_the_house())


@pytest.mark.parametrize("room", rooms_on_the_map())
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    rooms = rooms_on_the_map()
    below = rooms[rooms.index(room) + 1 :]
    for path in files_of(room):
        for module in imports_of(path):
            package, _, name = module.partition(".")
            other = name.partition(".")[0]
            if package == "_flask_pusher" and other in rooms and other != room:
                assert other in below, f"{path.name} imports {other}"


@pytest.mark.parametrize("room", rooms_on_the_map())
def test_no_room_imports_the_page(room: str) -> None:
    for path in files_of(room):
        assert not {one for one in imports_of(path) if one.split(".")[0] == "flask_pusher"}
