"""Real servers, a real browser, and between them an application that uses the extension."""
