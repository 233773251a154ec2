"""Real servers, a real browser, and between them an application that uses the extension."""

WAIT_SECONDS = 30
"""How long a test waits for what should come at once."""
