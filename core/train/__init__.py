"""Training: the worker process and the loop that it runs."""
