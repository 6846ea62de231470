"""The command line: `python -m core.cli`, one module a family of commands."""
