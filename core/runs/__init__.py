"""Runs: their files, and the supervisor that starts and stops them."""
