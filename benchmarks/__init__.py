"""Benchmarks: alternating trials in one process, reported as medians and ratios of medians."""
