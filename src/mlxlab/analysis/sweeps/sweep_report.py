"""The report of a sweep: `report.html`, and its tables in `report/`."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from mlxlab.analysis.sweeps.best_configuration import BestConfiguration, read_best
from mlxlab.analysis.sweeps.page import sweep_page
from mlxlab.analysis.sweeps.sweep_jobs import Configuration, Sweep, group_configurations
from mlxlab.analysis.sweeps.tables import Row, count_jobs, job_rows, ranking_rows
from mlxlab.analysis.sweeps.verdict import describe_ranking
from mlxlab.files.atomic import without_nonfinite, write_atomic, write_json
from mlxlab.stats.importance import Importance, measure_importance
from mlxlab.stats.ranking import Ranking, as_table, rank

PAGE = "report.html"
FOLDER = "report"


class SweepReport(NamedTuple):
    """The page, the folder of tables, the verdict in sentences, and the contents of report.json."""

    page: Path
    folder: Path
    verdict: list[str]
    summary: dict[str, object]


def write_sweep_report(sweep: Sweep, folder: Path) -> SweepReport:
    """Writes the report into a folder; OSError if that fails."""
    configurations = group_configurations(sweep)
    results = [each.results(sweep.objective) for each in configurations]
    table = as_table(results)
    ranking = rank(table, minimised=sweep.minimised, shared_rows=sweep.test_ratio)
    means = {each.index: each.mean for each in ranking.entries}
    importance = measure_importance(
        [each.point for each in configurations], [means[n] for n in range(len(means))]
    )
    best = read_best(configurations[ranking.entries[0].index]) if ranking.entries else None
    finding = best.finding if best else ""
    verdict = describe_ranking(ranking, configurations, sweep.objective, sweep.repetition, finding)
    summary = _summary(sweep, configurations, ranking, verdict, importance, best)
    files = {
        PAGE: sweep_page(sweep, configurations, ranking, importance, verdict, best),
        f"{FOLDER}/ranking.csv": _csv(ranking_rows(sweep, configurations, ranking, full=True)),
        f"{FOLDER}/jobs.csv": _csv(job_rows(sweep, sweep.jobs)),
    }
    _write(folder, files, summary)
    return SweepReport(folder / PAGE, folder / FOLDER, verdict, summary)


def _summary(
    sweep: Sweep,
    configurations: Sequence[Configuration],
    ranking: Ranking,
    verdict: list[str],
    importance: Importance,
    best: BestConfiguration | None,
) -> dict[str, object]:
    """The contents of report.json."""
    summary: dict[str, object] = {
        "objective": sweep.objective,
        "jobs": count_jobs(sweep),
        "verdict": verdict,
        "winner": configurations[ranking.winner.index].point if ranking.winner else None,
        "learned_nothing": best.judgement.verdict == "learned nothing" if best else None,
        "seeds_needed": None if best and best.finding else ranking.seeds_needed,
        "ranking": [
            {**configurations[each.index].point, **asdict(each)} for each in ranking.entries
        ],
        "importance": importance.shares,
    }
    plain: dict[str, object] = without_nonfinite(summary)
    return plain


def _write(folder: Path, files: Mapping[str, str], summary: dict[str, object]) -> None:
    """Writes files by their path in the folder."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        write_atomic(folder / path, data)
    write_json(target / "report.json", summary)


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
