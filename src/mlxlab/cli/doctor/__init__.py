"""Checks the installation, and says what to do about each finding: a line each.

    mlxlab doctor [--json] [timeout=60]

Checks Python and the platform, packages and extras, the config files, MLX, its device and its BLAS, the native
kernels, memory, cores, the clock, folders and free space, and the tracking store. Nothing is changed. Each group of
checks runs in a process of its own, so that a broken package cannot crash or stop the others. `mlxlab runs doctor`
mends runs in the store.

Exit codes: 0 without errors, also with warnings; 69 with errors.
"""

from json import dumps

from mlxlab import terminal
from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.doctor.finding import Finding, Status
from mlxlab.cli.doctor.groups import examine
from mlxlab.constraints import Positive
from mlxlab.errors import ServiceUnavailableError
from mlxlab.terminal.tables import hang

_STYLES: dict[Status, terminal.Style] = {
    "ok": "green",
    "note": "bold",
    "warning": "yellow",
    "error": "red",
}
_CHECK, _VALUE = 9, 24  # columns
MIN_TEXT = 50  # columns for the text; with less there is no column of names


def _doctor(timeout: Positive = 60.0, json: bool = False) -> int:
    """Checks the installation.

    Args:
        timeout: seconds for a group of checks, after which it is stopped and reported.
        json: prints JSON instead of lines.
    """
    findings = []
    for each in examine(timeout):
        findings.append(each)
        if not json:
            print("\n".join(_lines(each)), flush=True)
    if json:
        print(dumps(findings, indent=1))
    else:
        print(f"\n{_summary(findings)}")
    return (
        ServiceUnavailableError.exit_code
        if any(each["status"] == "error" for each in findings)
        else 0
    )


def _lines(each: Finding) -> list[str]:
    """One line; on a terminal that is too narrow for it, several."""
    status, width = each["status"], terminal.columns() or 1_000_000
    text = "; ".join(filter(None, [each["value"], each["remedy"]]))
    head = f"{status:{_CHECK - 1}} {each['check']}"
    start = _VALUE if len(head) < _VALUE else len(head) + 2
    if width - start < MIN_TEXT:
        head, text, start = status, f"{each['check']}: {text}", _CHECK
    first, *further = hang(head, text, start, width)
    return [terminal.styled(status, _STYLES[status]) + first[len(status) :], *further]


def _summary(findings: list[Finding]) -> str:
    counts = {
        status: sum(each["status"] == status for each in findings)
        for status in ("error", "warning")
    }
    texts = [f"{count} {status}{'s' * (count != 1)}" for status, count in counts.items() if count]
    return ", ".join(texts) or "no errors"


main = build_main(__doc__, Subcommand(_doctor), needs_args=False)
