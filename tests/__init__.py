"""The tests. They mirror app/ and core/; `python launch.py test` runs them, by way of run.py."""
