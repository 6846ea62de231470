"""Frozen layers that lie in ordinary memory or in a file, and visit the device in turn while others compute."""
