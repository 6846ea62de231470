"""Benchmarks: each `main(seed)` measures a reference and ours in the same run and says whether the bar holds."""
