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
from typing import NamedTuple, Protocol

import pytest

TREE = Path(__file__).parents[1]
VERSION = "4.0.0"
FOLDERS = ("_flask_pusher", "benchmarks", "docs", "examples", "tests")
NO_PART = shutil.ignore_patterns(
    *(".git", ".tox", ".venv", ".*_cache", ".hypothesis", "__pycache__", "node_modules"),
    *("*.egg-info", "*.py[cod]", ".coverage*", "_build", "build", "dist"),
    "pytest-cache-files-*",
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
        "_flask_pusher/__pycache__/rules.cpython-311.pyc",
        "docs/_build/html/index.html",
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
    for name in ("flask_pusher.py", "pyproject.toml", "setup.py", "tox.ini"):
        assert held[name] == (TREE / name).read_bytes()
    for name in ("CHANGES.rst", "CONTRIBUTING.rst", "LICENSE", "README.rst"):
        assert held[name] == (TREE / name).read_bytes()
    below = {name for name in held if name.partition("/")[0] in FOLDERS}
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


def test_the_wheel_holds_the_module_its_rooms_and_their_types(release: Release) -> None:
    about = f"flask_pusher-{VERSION}.dist-info"
    held = contents(release.wheel)
    rooms = {
        path.relative_to(release.tree).as_posix()
        for path in (release.tree / "_flask_pusher").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert rooms > {
        "_flask_pusher/py.typed",
        "_flask_pusher/local/page.html",
        "_flask_pusher/page/page.js",
    }
    assert set(held) == rooms | {
        "flask_pusher-stubs/__init__.pyi",
        "flask_pusher.py",
        f"{about}/METADATA",
        f"{about}/RECORD",
        f"{about}/WHEEL",
        f"{about}/licenses/LICENSE",
        f"{about}/top_level.txt",
    }
    source = (TREE / "flask_pusher.py").read_bytes()
    assert held["flask_pusher.py"] == source
    assert held["flask_pusher-stubs/__init__.pyi"] == source


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
    readme = (TREE / "README.rst").read_text(encoding="utf-8")
    before, _, picture = readme.partition(".. image::")
    assert metadata.get_payload() == before + picture.partition("\n\n")[2]
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
        f"{name}>={version}"
        for name, version in pins
        if name in {"Flask", "aiohttp", "pusher", "wsproto"}
    }


def environment(folder: Path, *packages: object) -> Path:
    """A new virtual environment's Python, with these installed."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(python, "-m", "pip", "install", *packages)
    return python


def test_nothing_is_left_when_it_is_uninstalled(release: Release, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "--no-deps", release.wheel)
    installed = {path.name for path in tmp_path.rglob("*flask_pusher*")}
    assert installed > {"_flask_pusher", "flask_pusher-stubs", "flask_pusher.py"}
    run(python, "-m", "pip", "uninstall", "--yes", "Flask-Pusher")
    assert list(tmp_path.rglob("*flask_pusher*")) == []


def test_an_editable_install_follows_the_tree(release: Release, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv", "--no-deps", "--editable", release.tree)
    for module, file in (
        ("flask_pusher", "flask_pusher.py"),
        ("_flask_pusher", "_flask_pusher/__init__.py"),
    ):
        found = f"import importlib.util; print(importlib.util.find_spec({module!r}).origin)"
        origin = run(python, "-c", found, cwd=tmp_path).strip()
        assert Path(origin) == release.tree / file


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


class Finding(NamedTuple):
    line: int
    message: str


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
    found = re.findall(rf"^{program.name}:(\d+): error: (.*)$", said, re.MULTILINE)
    return [Finding(int(line), message) for line, message in found]


def pyright(python: Path, program: Path) -> list[Finding]:
    said = check(program, "pyright", "--outputjson", "--pythonpath", str(python))
    return [
        Finding(found["range"]["start"]["line"] + 1, found["message"])
        for found in json.loads(said)["generalDiagnostics"]
        if found["severity"] == "error"
    ]


class FindFaults(Protocol):
    def __call__(self, name: str) -> list[Finding]: ...


@pytest.fixture(params=[mypy, pyright])
def find_faults(request: pytest.FixtureRequest, user: Path, tmp_path: Path) -> FindFaults:
    """What a type checker finds in a program of tests/typing, far from the tree."""

    def find_faults(name: str) -> list[Finding]:
        program = Path(shutil.copy(TREE / "tests/typing" / name, tmp_path))
        findings: list[Finding] = request.param(user, program)
        return findings

    return find_faults


def test_a_type_checker_takes_what_is_right(find_faults: FindFaults) -> None:
    assert find_faults("right.py") == []


def test_a_type_checker_refuses_what_is_wrong_and_nothing_else(find_faults: FindFaults) -> None:
    program = (TREE / "tests/typing/wrong.py").read_text("utf-8")
    lines = enumerate(program.splitlines(), start=1)
    wrong = {number for number, line in lines if line.endswith("# wrong")}
    assert {found.line for found in find_faults("wrong.py")} == wrong
