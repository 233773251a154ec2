"""Lets a server end in order that SIGTERM kills otherwise: waitress, uvicorn, flask run."""

import signal
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
