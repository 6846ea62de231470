"""An export opened by what a stranger would use, from its own files alone: one file a program."""
