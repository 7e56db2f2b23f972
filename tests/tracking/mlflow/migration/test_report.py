"""The report of a migration tells a user what stays in the source."""

from pathlib import Path

from mlxlab.tracking.mlflow.migration.migrate import Result
from mlxlab.tracking.mlflow.migration.report import as_json, format_results
from mlxlab.tracking.mlflow.migration.sources import Source


def test_traces_that_are_not_moved_are_one_line_with_their_number():
    result = Result(Source(Path("old.db"), True, Path()))
    result.left_out = {
        "trace_info": 3,
        "trace_tags": 9,
        "spans": 12,
        "assessments": 1,
        "webhooks": 2,
    }
    lines = [line for line in format_results([result]).splitlines() if "not moved" in line]
    assert lines == [
        "old.db: not moved: 3 traces, with their spans and assessments; they stay in the source",
        "old.db: not moved: 2 rows of webhooks",
    ]
    assert as_json([result])[0]["left_out"] == result.left_out
