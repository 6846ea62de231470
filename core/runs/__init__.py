"""Runs: the files that a run is, and the supervisor that starts and stops them."""
