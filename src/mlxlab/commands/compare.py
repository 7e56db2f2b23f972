"""`compare`: methods beside each other, over seeds and folds: who gains, and whether it is more than chance.

    compare.py against=NAME NAME=FOLDER[,FOLDER ...] NAME=FOLDER ... [metric=valid/accuracy] [share_of=NAME]
               [judged=last|best] [out=FOLDER]

NAME=     a method and its runs: run folders, or folders of them such as crossvalidate and sweeps leave
against   the method that the others are compared with
metric    of the evaluations; losses, perplexity and bits per byte are better the lower they are
share_of  the method that is 100 %, a teacher say
judged    by the last evaluation, or by the best one, which the judging rows have chosen
out       folder for comparison.md, .json and .png; the present one if not given

Runs of the same seed and fold are pairs. The test is the paired t; of cross-validations with the variance corrected for
the rows that folds share. Intervals are of 95 %. Where nothing is gained it says so.

Example
    compare.py alone=outputs/alone distilled=outputs/distilled teacher=outputs/teacher against=alone share_of=teacher
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlxlab.commands.shell import run_program
from mlxlab.config.nearest import suggestion
from mlxlab.errors import ConfigFault, DataFault, WriteFailed


class Options(NamedTuple):
    """What was typed."""

    methods: dict[str, list[Path]]
    against: str
    metric: str
    share_of: str
    best: bool
    out: Path


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    return run_program(__doc__, argv, _act)


def _act(words: list[str]) -> None:
    from mlxlab.callbacks.finished_runs import find, series_of
    from mlxlab.training.comparison import compare
    from mlxlab.training.comparison_report import write_comparison

    asked = parse(words)
    series, folds = [], set()
    for name, paths in asked.methods.items():
        one, seen = series_of(name, [run for path in paths for run in find(path)], asked.metric, asked.best)
        series.append(one)
        folds |= seen
    if len(folds) > 1:
        raise DataFault(f"runs of cross-validations with {', '.join(map(str, sorted(folds)))} folds: wanted the same")
    comparison = compare(asked.metric, series, asked.against, folds=next(iter(folds), None))
    try:
        command = " ".join(["scripts/compare.py", *words])
        print(write_comparison(comparison, asked.out, share_of=asked.share_of, command=command))
    except OSError as error:
        raise WriteFailed(f"{asked.out}: {error.strerror or error}") from None


def parse(words: Sequence[str]) -> Options:
    """The methods with their folders, and the options.

    Raises:
        ConfigFault: a word without `=`, a value that its option may not have, fewer than two methods.
    """
    own = {"against": "", "metric": "valid/accuracy", "share_of": "", "judged": "last", "out": "."}
    methods: dict[str, list[Path]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise ConfigFault(f"{word}: wanted NAME=FOLDER, or one of {', '.join(f'{name}=' for name in own)}")
        if key in own:
            own[key] = value
        else:
            methods.setdefault(key, []).extend(Path(part).expanduser() for part in value.split(","))
    if len(methods) < 2:
        raise ConfigFault(f"{len(methods)} methods: wanted two or more, each as NAME=FOLDER")
    for key in ("against", "share_of"):
        if own[key] not in methods and (own[key] or key == "against"):
            raise ConfigFault(f"{key}={own[key]}{suggestion(own[key], list(methods))}; one of {', '.join(methods)}")
    if own["judged"] not in ("last", "best"):
        raise ConfigFault(f"judged={own['judged']}: wanted last or best")
    best = own["judged"] == "best"
    return Options(methods, own["against"], own["metric"], own["share_of"], best, Path(own["out"]).expanduser())
