"""Benchmarks: `make bench-NAME` runs NAME.py. They compare side by side in one run, as ratios.

No test gates on what they print: machines are noisy. docs/benchmarks.md says what each number is.
"""
