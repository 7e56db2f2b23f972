"""Runs the script that `sys.argv` names, as a forked process: see `forks`."""

import runpy
import sys


def main() -> int:
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0
