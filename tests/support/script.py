"""Runs the script that `sys.argv` names, as a forked process: see `forks`."""

import runpy
import sys


def main() -> int:
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0
