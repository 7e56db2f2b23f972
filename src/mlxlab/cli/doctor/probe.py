"""Runs a group of checks in a process of its own, which may crash or hang: `python -m mlxlab.cli.doctor.probe NAME`.

A line of JSON for each finding, as soon as it is known.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator

from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.config.issues import one_line
from mlxlab.errors import UserError
from mlxlab.redact import redact

Check = Callable[[], Iterator[Finding]]


def run_checks(checks: dict[str, Check]) -> Iterator[Finding]:
    """The findings of all checks; one that fails does not keep the others from running."""
    for name, check in checks.items():
        try:
            yield from check()
        except UserError as error:
            yield finding(name, str(error), "error")
        except Exception as error:  # of a broken package: anything
            yield finding(name, f"{type(error).__name__}: {error}", "error")


def main(group: str) -> None:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no finding
    for each in run_checks(importlib.import_module(f"mlxlab.cli.doctor.{group}").CHECKS):
        texts = {key: one_line(redact(str(each[key])), 400) for key in ("value", "remedy")}
        print(json.dumps(each | texts), file=output, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
