"""The warnings of the runs of a cross-validation: each once, with the largest count of all folds."""

import re
from collections import Counter
from collections.abc import Sequence

from mlxlab.data.overlap import DROPPED, SAME_INPUT
from mlxlab.views.run_view import RunView
from mlxlab.wording import one_line

_NUMBER = re.compile(r"(?<![\w'])(?<!\w[-.])\d+(?:[.,]\d+)*(?![\w'])")  # that is not in a name


def fold_warnings(runs: Sequence[RunView]) -> list[str]:
    """Warnings that differ only in their numbers are one; each says how many of the runs have it."""
    counts = Counter[str]()
    texts = dict[str, str]()
    largest = dict[str, float]()
    for run in runs:
        for key, (size, text) in _of_run(run).items():
            counts[key] += 1
            if size > largest.get(key, -1.0):
                largest[key] = size
                texts[key] = text
    return [f"{texts[key]} ({count} of {len(runs)} runs)" for key, count in counts.items()]


def _of_run(run: RunView) -> dict[str, tuple[float, str]]:
    """(its first number, the text) of each warning, by the text without numbers and the folder of the run."""
    record = run.record
    largest = dict[str, tuple[float, str]]()

    advice = "figures on repeated rows flatter the model; data.on_overlap=drop leaves them out"
    repeated = [
        f"{line}: {advice}"
        for line in record.data.messages
        if SAME_INPUT in line and not line.endswith(DROPPED)
    ]
    warnings = [line for attempt in record.attempts for line in attempt.warnings]
    for line in (*repeated, *warnings):
        number = _NUMBER.search(line)
        size = float(number[0].replace(",", "")) if number and number[0].count(".") < 2 else 0.0
        key = _NUMBER.sub("#", line.replace(str(run.folder.absolute()), ""))
        if key not in largest or size > largest[key][0]:
            largest[key] = size, one_line(line, 300)
    return largest
