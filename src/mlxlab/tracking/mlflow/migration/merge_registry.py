"""Merges registered models by name: versions that both have are the same, others get the next number."""

import sqlite3

from mlxlab.tracking.mlflow.address import local_path
from mlxlab.tracking.mlflow.migration.tables import columns

_SAME = """
select version from main.model_versions
where workspace = 'default' and name = ? and run_id is ? and creation_time is ?
order by version
"""
_ALIASES = """
insert or ignore into main.registered_model_aliases (name, alias, version)
select s.name, s.alias, m.version
from source.registered_model_aliases s
join version_map m on m.name = s.name and m.source_version = s.version
"""
_KEPT_ALIASES = """
select s.name, s.alias, c.version
from source.registered_model_aliases s
join version_map m on m.name = s.name and m.source_version = s.version
join main.registered_model_aliases c on c.name = s.name and c.alias = s.alias and c.version != m.version
"""
_VERSION_TAGS = """
insert or ignore into main.model_version_tags (key, value, name, version)
select s.key, s.value, s.name, m.version
from source.model_version_tags s
join version_map m on m.name = s.name and m.source_version = s.version
"""
_LOCATION = """
select uri from run_map where run_uuid = :owner union select location from model_map where model_id = :owner
"""


def merge_registry(database: sqlite3.Connection) -> tuple[dict[str, int], int, list[str]]:
    """(model -> its new versions, number of new rows, notes)."""
    changes = database.execute(
        "insert or ignore into main.registered_models (name, creation_time, last_updated_time, description)"
        " select name, creation_time, last_updated_time, description from source.registered_models"
    ).rowcount
    changes += database.execute(
        "insert or ignore into main.registered_model_tags (key, value, name)"
        " select key, value, name from source.registered_model_tags"
    ).rowcount
    new, notes = _merge_versions(database)
    changes += (
        sum(new.values())
        + database.execute(_VERSION_TAGS).rowcount
        + database.execute(_ALIASES).rowcount
    )
    for name, alias, version in database.execute(_KEPT_ALIASES):
        notes.append(f"models:/{name}@{alias} stays at version {version} of the central store")
    return new, changes, notes


def _merge_versions(database: sqlite3.Connection) -> tuple[dict[str, int], list[str]]:
    names = "name, version, run_id, creation_time, source, storage_location"
    query = f"select {names} from source.model_versions order by name, version"
    new: dict[str, int] = {}
    notes, matched = [], set()
    for name, number, run_id, created, source, storage in database.execute(query).fetchall():
        same = [
            row[0]
            for row in database.execute(_SAME, (name, run_id, created))
            if (name, row[0]) not in matched
        ]
        version = same[0] if same else _free_number(database, name, number)
        matched.add((name, version))
        database.execute("insert into version_map values (?, ?, ?)", (name, number, version))
        if same:
            continue
        new[name] = new.get(name, 0) + 1
        locations = [_moved(database, location) for location in (source, storage)]
        if None in locations:
            notes.append(
                f"models:/{name}/{version}: its files are outside the runs, and stay where they are"
            )
        special = {
            "version": version,
            "source": locations[0] or source,
            "storage_location": locations[1] or storage,
        }
        _insert_version(database, name, number, special)
    return new, notes


def _insert_version(
    database: sqlite3.Connection, name: str, number: int, special: dict[str, object]
) -> None:
    names = columns(database, "main", "model_versions")
    values = ", ".join(f":{column}" if column in special else column for column in names)
    database.execute(
        f"insert into main.model_versions ({', '.join(names)}) select {values}"
        " from source.model_versions where name = :of and version = :number",
        special | {"of": name, "number": number},
    )


def _free_number(database: sqlite3.Connection, name: str, number: int) -> int:
    query = "select count(*) filter (where version = ?), max(version) from main.model_versions where name = ?"
    used, highest = database.execute(query, (number, name)).fetchone()
    return int(highest) + 1 if used else number


def _moved(database: sqlite3.Connection, location: str | None) -> str | None:
    """A location within the artifacts of a run or a logged model, where these are now; None if it is elsewhere.

    Locations that are no paths (`models:/m-...`, `runs:/...`, `s3://...`) stay as they are.
    """
    path = local_path(location) if location else None
    if path is None:
        return location or ""
    for index, part in enumerate(path.parts):
        if part == "artifacts" and index:
            rest = "/".join(path.parts[index + 1 :])
            if row := database.execute(_LOCATION, {"owner": path.parts[index - 1]}).fetchone():
                return f"{row[0]}/{rest}" if rest else str(row[0])
    return None
