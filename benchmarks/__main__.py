"""Runs the benchmarks, one after the other: ``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("auth", "startup", "publish", "models", "local_server")

statuses = [
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
    for name in sys.argv[1:] or NAMES
]
sys.exit(any(statuses))
