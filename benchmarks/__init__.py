"""Measurements: side by side in one process, alternating, reported as medians and ratios of medians."""
