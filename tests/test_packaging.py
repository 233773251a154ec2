"""What a release holds, and what a user has after installing it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

TREE = Path(__file__).parents[1]
VERSION = "4.0.0"
MODULES = ("flask_pusher", "flask_pusher_local")
FOLDERS = ("benchmarks", "docs", "examples", "tests")
NO_PART = shutil.ignore_patterns(
    *(".git", ".tox", ".venv", ".*_cache", ".hypothesis", "__pycache__", "node_modules"),
    *("*.egg-info", "*.py[cod]", ".coverage*", "_build", "build", "dist"),
)


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command that must succeed, and return what it said."""
    finished = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@dataclass
class Release:
    tree: Path
    sdist: Path
    wheel: Path
    wheel_from_tree: Path
    log: str


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The sdist, the wheel built from it and one built from the tree, which has been used."""
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    shutil.copytree(TREE, tree, ignore=NO_PART)
    for litter in (
        "tests/__pycache__/test_client.cpython-311.pyc",
        "tests/e2e/node_modules/pusher-js/index.js",
        "examples/chat/node_modules/pusher-js/index.js",
        "tests/.hypothesis/constants/1",
        "docs/_build/html/index.html",
        "tests/.pytest_cache/README.md",
        ".tox/log/1.log",
    ):
        (tree / litter).parent.mkdir(parents=True, exist_ok=True)
        (tree / litter).touch()
    # Without a choice, `build` makes the wheel from the sdist.
    log = run(sys.executable, "-m", "build", "--outdir", folder / "dist", tree)
    log += run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "from-tree", tree)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    (wheel_from_tree,) = (folder / "from-tree").glob("*.whl")
    return Release(tree, sdist, wheel, wheel_from_tree, log)


def contents(archive: Path) -> dict[str, bytes]:
    """The files of an sdist, below its one folder, or of a wheel."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist()}
    with tarfile.open(archive) as sdist:
        return {
            member.name.partition("/")[2]: reader.read()
            for member in sdist.getmembers()
            if (reader := sdist.extractfile(member))
        }


@pytest.fixture(scope="module")
def metadata(release: Release) -> Message:
    return message_from_bytes(
        contents(release.wheel)[f"flask_pusher-{VERSION}.dist-info/METADATA"]
    )


def test_the_build_uses_nothing_deprecated(release: Release) -> None:
    assert not re.search("deprecat", release.log, re.IGNORECASE)


def test_the_sdist_holds_what_the_tree_holds(release: Release) -> None:
    held = contents(release.sdist)
    for module in MODULES:
        assert held[f"{module}.py"] == (TREE / f"{module}.py").read_bytes()
    for name in ("CHANGES.rst", "LICENSE", "README.rst", "pyproject.toml", "setup.py", "tox.ini"):
        assert held[name] == (TREE / name).read_bytes()
    below = {name for name in held if name.startswith(FOLDERS)}
    litter = re.compile(r"/(__pycache__|_build|node_modules|\.\w+)/")
    tracked = {
        path.relative_to(release.tree).as_posix()
        for folder in FOLDERS
        for path in release.tree.joinpath(folder).rglob("*")
        if path.is_file() and not litter.search(path.relative_to(release.tree).as_posix())
    }
    assert below == tracked
    assert "tests/test_packaging.py" in below


def test_the_sdist_holds_nothing_that_was_made(release: Release) -> None:
    made = re.compile(r"\.py[co]$|(^|/)(__pycache__|_build|node_modules|\.\w+)/")
    assert [name for name in contents(release.sdist) if made.search(name)] == []


def test_the_wheel_holds_the_modules_and_their_types(release: Release) -> None:
    about = f"flask_pusher-{VERSION}.dist-info"
    held = contents(release.wheel)
    assert set(held) == {
        "flask_pusher-stubs/__init__.pyi",
        "flask_pusher.py",
        "flask_pusher_local-stubs/__init__.pyi",
        "flask_pusher_local.py",
        f"{about}/METADATA",
        f"{about}/RECORD",
        f"{about}/WHEEL",
        f"{about}/licenses/LICENSE",
        f"{about}/top_level.txt",
    }
    for module in MODULES:
        source = (TREE / f"{module}.py").read_bytes()
        assert held[f"{module}.py"] == source
        assert held[f"{module}-stubs/__init__.pyi"] == source


def test_the_wheel_is_the_same_from_the_sdist_and_from_the_tree(release: Release) -> None:
    assert release.wheel.name == release.wheel_from_tree.name
    assert contents(release.wheel) == contents(release.wheel_from_tree)


def test_the_wheel_is_for_every_python_and_platform(release: Release) -> None:
    assert release.wheel.name == f"flask_pusher-{VERSION}-py3-none-any.whl"


def test_the_index_would_take_the_release(release: Release) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", release.sdist, release.wheel)


def test_the_metadata_says_what_it_is_and_what_it_needs(metadata: Message) -> None:
    assert metadata["Name"] == "Flask-Pusher"
    assert metadata["Version"] == VERSION
    assert metadata["Author"] == "The Flask-Pusher authors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.9"
    assert metadata["Description-Content-Type"] == "text/x-rst"
    assert metadata.get_payload() == (TREE / "README.rst").read_text(encoding="utf-8")
    assert metadata.get_all("Provides-Extra") == ["async", "local"]
    classifiers = metadata.get_all("Classifier", [])
    assert "Framework :: Flask" in classifiers
    assert "Typing :: Typed" in classifiers
    pythons = [name for name in classifiers if re.search(r"Python :: 3\.\d", name)]
    assert [name.rpartition(".")[2] for name in pythons] == [str(n) for n in range(9, 16)]


def test_the_metadata_invents_no_address(metadata: Message) -> None:
    for field in ("Project-URL", "Home-page", "Download-URL", "Author-email"):
        assert field not in metadata


def test_every_requirement_is_a_lower_bound_that_tox_tests(metadata: Message) -> None:
    pins = re.findall(r"lowest: ([\w-]+)==([\d.]+)", (TREE / "tox.ini").read_text("utf-8"))
    required = [line.partition(";")[0].strip() for line in metadata.get_all("Requires-Dist", [])]
    assert {re.sub(r"\[\w+\]", "", line) for line in required} == {
        f"{name}>={version}" for name, version in pins if name in {"Flask", "aiohttp", "pusher"}
    }


def environment(folder: Path, *packages: object) -> Path:
    """A new virtual environment's Python, with these installed."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(python, "-m", "pip", "install", *packages)
    return python


def test_nothing_is_left_when_it_is_uninstalled(release: Release, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "--no-deps", release.wheel)
    assert {path.name for path in tmp_path.rglob("flask_pusher*")} > {
        f"{module}-stubs" for module in MODULES
    }
    run(python, "-m", "pip", "uninstall", "--yes", "Flask-Pusher")
    assert list(tmp_path.rglob("flask_pusher*")) == []


def test_an_editable_install_follows_the_tree(release: Release, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "--no-deps", "--editable", release.tree)
    for module in MODULES:
        found = f"import importlib.util; print(importlib.util.find_spec({module!r}).origin)"
        origin = run(python, "-c", found, cwd=tmp_path).strip()
        assert Path(origin) == release.tree / f"{module}.py"


@pytest.fixture(scope="module")
def user(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of somebody who has installed the wheel and all that it needs."""
    return environment(tmp_path_factory.mktemp("user") / "venv", release.wheel)


def test_the_extension_needs_no_extra(user: Path, tmp_path: Path) -> None:
    said = run(
        user, "-c", "import flask_pusher, sys; print('aiohttp' in sys.modules)", cwd=tmp_path
    )
    assert said == "False\n"
    assert "aiohttp" not in run(user, "-m", "pip", "list")


# Each line that a type checker must refuse ends in `# wrong`.
SHOP = """\
# pyright: strict
from __future__ import annotations

from flask import Flask
from flask_pusher import Client, Pusher, RecordedEvent

app = Flask(__name__)
pusher = Pusher(app, url_prefix="/realtime")


@pusher.auth
def may_follow(channel_name: str, socket_id: str) -> bool:
    return channel_name == "private-shop"


@pusher.auth("private-order-<int:order_id>")
def may_follow_order(channel_name: str, socket_id: str, order_id: int) -> bool:
    return order_id == 1


@pusher.channel_data("presence-room-<room>")
async def who(channel_name: str, socket_id: str, room: str) -> dict[str, object]:
    return {"user_id": 7, "name": "Ana"}


@pusher.user_auth
def user(socket_id: str) -> dict[str, object] | None:
    return None


@pusher.webhooks.presence
def presence() -> None:
    pass


@pusher.webhooks.event("member_added")
def added(event: dict[str, object]) -> None:
    pass


def ship(order_id: int) -> None:
    client: Client = pusher.client
    client.trigger(f"private-order-{order_id}", "shipped", {"by": "truck"})
    pusher.defer(["a", "b"], "shipped", {"by": "truck"}, socket_id=pusher.socket_id)
    with pusher.record_events() as events:
        first: RecordedEvent = events[0]
        print(first.name.upper(), first.channels)


reveal_type(pusher.client)
reveal_type(pusher.client.key)
reveal_type(pusher.blueprint)
reveal_type(pusher.socket_id)
reveal_type(may_follow)
reveal_type(may_follow_order)

Pusher("shop")  # wrong
Pusher(app, prefix="/realtime")  # wrong
pusher.init_app(None)  # wrong
pusher.auth(7)  # wrong
pusher.defer("a", 7, {})  # wrong
pusher.client.key.no_such_method()  # wrong
pusher.no_such_method()  # wrong
pusher.client = None  # wrong
may_follow_order("private-order-1", "1.2", "1")  # wrong
"""
REVEALED = {
    "pusher.client": "Client",
    "pusher.client.key": "str",
    "pusher.blueprint": "Blueprint",
    "pusher.socket_id": "str | None",
    "may_follow": "(channel_name: str, socket_id: str) -> bool",
    "may_follow_order": "(channel_name: str, socket_id: str, order_id: int) -> bool",
}


class Finding(NamedTuple):
    line: int
    kind: str
    text: str


def check(program: Path, *command: str) -> str:
    """What a type checker prints; that it finds faults is no failure here."""
    return subprocess.run(
        [sys.executable, "-m", *command, program.name],
        cwd=program.parent,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    ).stdout


def mypy(python: Path, program: Path) -> list[Finding]:
    said = check(program, "mypy", "--strict", "--python-executable", str(python))
    found = re.findall(r"^shop\.py:(\d+): (error|note): (.*)$", said, re.MULTILINE)
    return [Finding(int(line), kind, text) for line, kind, text in found]


def pyright(python: Path, program: Path) -> list[Finding]:
    said = check(program, "pyright", "--outputjson", "--pythonpath", str(python))
    return [
        Finding(found["range"]["start"]["line"] + 1, found["severity"], found["message"])
        for found in json.loads(said)["generalDiagnostics"]
    ]


@pytest.fixture(scope="module", params=[mypy, pyright])
def findings(
    request: pytest.FixtureRequest, user: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Finding]:
    """What a type checker says of a user's program."""
    program = tmp_path_factory.mktemp("program") / "shop.py"
    program.write_text(SHOP)
    findings: list[Finding] = request.param(user, program)
    return findings


def test_a_type_checker_refuses_what_is_wrong_and_nothing_else(findings: list[Finding]) -> None:
    lines = enumerate(SHOP.splitlines(), start=1)
    wrong = {number for number, line in lines if line.endswith("# wrong")}
    assert {found.line for found in findings if found.kind == "error"} == wrong


def test_a_type_checker_knows_the_types(findings: list[Finding]) -> None:
    lines = SHOP.splitlines()
    revealed = {}
    for found in findings:
        if shown := re.search(r'(?:Revealed type|Type of ".*") is "(?:def )?(.*)"', found.text):
            expression = lines[found.line - 1][len("reveal_type(") : -1]
            revealed[expression] = re.sub(r"\w+\.(?=\w)", "", shown[1])
    assert revealed == REVEALED
