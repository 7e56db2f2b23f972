"""Processes: start of a run, native kernels, several processes."""
