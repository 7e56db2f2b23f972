"""Compares runs of this checkout with those of earlier commits, bit for bit.

    python -m tests.golden [only=bert_titanic,cnn_text] [checkout=FOLDER]

Each case of tests/golden/cases.py runs at its reference commit, whose files come from the history, and with the code of
this checkout, or of another folder; losses by step, weights and optimizer state must be equal. Outcomes of reference
commits are kept in .cache/golden. `checkout=.cache/golden/checkouts/5229f459` runs that commit once more.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.golden.cases import CASES, Case
from tests.golden.outcome import differences
from tests.golden.reference import ROOT, References, has_commit
from tests.golden.run import RunError, Runner, can_build_kernels


def main(args: Sequence[str]) -> int:
    """Returns the exit code: 1 if a case differs or could not be run, 2 for a wrong argument."""
    options = dict(arg.split("=", 1) for arg in args if "=" in arg)
    known = {case.name: case for case in CASES}
    selected = options.pop("only", ",".join(known)).split(",")
    checkout = Path(options.pop("checkout", ROOT)).resolve()
    unknown = [name for name in selected if name not in known]
    if unknown or options or len(args) > 2 or not all("=" in arg for arg in args):
        print(f"expected only=NAME,... and checkout=FOLDER; names: {', '.join(known)}")
        return 2
    with tempfile.TemporaryDirectory(prefix="mlxlab-golden-") as folder:
        return compare([known[name] for name in selected], checkout, Path(folder))


def compare(cases: list[Case], checkout: Path, folder: Path) -> int:
    references = References(folder / "references")
    present = Runner(checkout, folder / "present")
    num_failed = 0
    for case in cases:
        start = time.monotonic()
        try:
            result, has_failed = compare_case(case, references, present)
        except RunError as error:
            result, has_failed = f"failed: {error}", True
        num_failed += has_failed
        print(f"{case.name} ({time.monotonic() - start:.1f} s): {result}", flush=True)
    print(f"{len(cases)} cases, {num_failed} differ or failed")
    return 1 if num_failed else 0


def compare_case(case: Case, references: References, present: Runner) -> tuple[str, bool]:
    """What is said of a case, and whether it failed."""
    if not has_commit(case.reference):
        return f"failed: commit {case.reference} is not in the history of {ROOT}", True
    if case.native and not can_build_kernels():
        return "skipped: no native kernels on this machine", False
    expected = references.outcome(case)
    lines = differences(expected, present.run(case, expected.settings))
    if lines:
        return "\n    ".join([f"differs from {case.reference}", *lines]), True
    return f"equal to {case.reference}", False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
