"""The README and the pages of ``docs/``: what they show is run, and how they look is checked."""

from pathlib import Path

TREE = Path(__file__).parents[3]
