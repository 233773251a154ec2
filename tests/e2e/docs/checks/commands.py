# What the examples of docs/commands.rst come to.

# -- after: flask pusher check

project.run_line("flask pusher check")
assert "any-secret" not in project.terminal.printed
project.lose_channels()
refused = project.app.test_cli_runner().invoke(args=["pusher", "channels"])
assert refused.exit_code != 0
assert len(refused.output.splitlines()) == 1
