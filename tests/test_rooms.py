"""The map in CONTRIBUTING.rst is true: each room is on it, imports only rooms below, and asks no
other for a private name."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "_flask_pusher"
CONTRIBUTING = (ROOT / "CONTRIBUTING.rst").read_text()


def rooms_on_the_map() -> list[str]:
    """The rooms in the map's order, highest first."""
    return re.findall(r"^   \* - ``([\w/]+?)(?:\.py|/)``$", CONTRIBUTING, re.MULTILINE)


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


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"``([\w./-]+\.(?:py|rst))``", CONTRIBUTING)))
)
def test_each_file_that_contributors_are_sent_to_is_there(name: str) -> None:
    assert (ROOT / name).exists() or (HOUSE / name).exists()


# -- Private names --------------------------------------------------------------------------------


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def private_names_of(*paths: Path) -> set[str]:
    """The private names that a room has: its functions, classes, variables and attributes."""
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if is_private(name)}


def private_names_used_in(path: Path) -> set[str]:
    """The private names that a file asks other objects or modules for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return {name for name in found if is_private(name)}


@pytest.mark.parametrize("room", ["the page", *rooms_on_the_map()])
def test_a_rooms_private_names_are_its_own(room: str) -> None:
    rooms = {other: private_names_of(*files_of(other)) for other in rooms_on_the_map()}
    files = files_of(room) if room in rooms else [ROOT / "flask_pusher.py"]
    own = rooms.pop(room, private_names_of(*files))
    of_others = set().union(*rooms.values()) - own - {"_replace"}  # which is a NamedTuple's too
    found = {path.name: private_names_used_in(path) & of_others for path in files}
    assert not {name: names for name, names in found.items() if names}
