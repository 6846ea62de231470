"""Benchmarks. Each `main(seed)` measures Nibble and a reference in the same run and says whether the bar holds."""
