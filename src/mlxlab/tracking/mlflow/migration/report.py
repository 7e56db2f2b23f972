"""What a migration has moved, as a table and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict

from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.migration.merge import ExperimentCounts
from mlxlab.tracking.mlflow.migration.migrate import Result

_HEAD = ("store", *ExperimentCounts._fields)


def format_results(results: list[Result]) -> str:
    """A row per experiment that has got something; below, registered models and whatever was not moved."""
    rows = [
        [str(result.source.path), *map(str, counts)]
        for result in results
        for counts in result.merged.experiments
    ]
    lines = [markdown_table(_HEAD, rows, "llr"), ""] if rows else []
    for result in results:
        lines += _lines(result)
    return "\n".join(lines)


def _lines(result: Result) -> list[str]:
    if result.error is not None:
        return []  # reported as an error
    path, merged = result.source.path, result.merged
    if merged.has_changes or result.files.files:
        files = (
            f"{result.files.files} files of artifacts copied, {result.files.unchanged} were there"
        )
        lines = [f"{path}: {files}, {result.without_artifacts} runs and models have none"]
    else:
        lines = [f"{path}: nothing new"]
    lines += [
        f"{path}: models:/{name}: {count} versions" for name, count in merged.versions.items()
    ]
    lines += [f"{path}: {note}" for note in merged.notes]
    lines += [f"{path}: not moved: {line}" for line in result.skipped]
    if traces := result.left_out.get("trace_info", 0) + result.left_out.get("traces", 0):
        lines.append(
            f"{path}: not moved: {traces} traces, with their spans and assessments; they stay in the source"
        )
    others = {table: count for table, count in result.left_out.items() if not _is_of_traces(table)}
    lines += [f"{path}: not moved: {count:,} rows of {table}" for table, count in others.items()]
    if result.backup:
        lines.append(f"{result.backup}: the central store as it was before")
    return lines


def _is_of_traces(table: str) -> bool:
    return table.startswith(("trace", "span", "assessment")) or table == "entity_associations"


def as_json(results: list[Result]) -> list[Mapping[str, object]]:
    return [
        {
            "store": str(result.source.path),
            "error": str(result.error) if result.error else None,
            "experiments": [counts._asdict() for counts in result.merged.experiments],
            "versions": result.merged.versions,
            "files": asdict(result.files) | {"without": result.without_artifacts},
            "notes": result.merged.notes,
            "skipped": result.skipped,
            "left_out": result.left_out,
            "backup": str(result.backup) if result.backup else None,
        }
        for result in results
    ]
