"""Reads the model registry of an SQLite store by plain SQL: importing MLflow's client takes two seconds."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlxlab.errors import InputNotFoundError, ServiceUnavailableError
from mlxlab.files.untrusted import parse_json
from mlxlab.tracking.mlflow.errors import printable
from mlxlab.tracking.mlflow.registry.model_registry import MOVE, AliasMove, Version, version_of

_VERSION = "name = ? and workspace = 'default' and current_stage is not 'Deleted_Internal'"
_READY = 2  # status of a logged model
_uri = re.compile(
    r"models:/(?P<id>m-[0-9a-f]{32})"
    r"|models:/(?P<name>[^/@%]+)(?:/(?P<version>[0-9]{1,18})|@(?P<alias>[^/@%]+))"
    r"|runs:/(?P<run>[0-9a-f]{32})/(?P<model>[^/%]+)"
)


class SqliteRegistry:
    """The `RegistryReader` of an SQLite store. Raises ServiceUnavailableError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        rows = self._query(
            "select name from registered_models where workspace = 'default' order by name"
        )
        return [name for (name,) in rows]

    def aliases(self, name: str) -> dict[str, int]:
        where = "where name = ? and workspace = 'default' order by alias"
        return dict(
            self._query(f"select alias, version from registered_model_aliases {where}", [name])
        )

    def versions(self, name: str) -> list[Version]:
        tags: dict[int, dict[str, str]] = {}
        query = "select version, key, value from model_version_tags where name = ? and workspace = 'default'"
        for number, key, value in self._query(query, [name]):
            tags.setdefault(number, {})[key] = value
        query = f"select version, creation_time, run_id, source from model_versions where {_VERSION} order by 1 desc"
        aliases = self.aliases(name)
        rows = self._query(query, [name])
        return [
            version_of(number, created, run_id, source, tags.get(number, {}), aliases)
            for number, created, run_id, source in rows
        ]

    def params(self, run_id: str) -> dict[str, str]:
        return dict(self._query("select key, value from params where run_uuid = ?", [run_id]))

    def moves(self, name: str) -> list[AliasMove]:
        query = "select key, value from registered_model_tags where name = ? and workspace = 'default' order by key"
        rows = self._query(query, [name])
        return [
            parse_json(value, AliasMove, f"{name}: tag {key}")
            for key, value in rows
            if key.startswith(MOVE)
        ]

    def model_location(self, uri: str) -> tuple[str, str] | None:
        """(id, address of the artifacts) of a logged model; None if MLflow must say what the name means.

        Raises InputNotFoundError if there is no such model.
        """
        match = _uri.fullmatch(uri)
        if match is None:
            return None
        condition, values = "model_id = ?", [match["id"]]
        if match["name"]:
            source = self._source(match["name"], match["version"], match["alias"])
            address = source and _uri.fullmatch(source)
            if source and not (address and address["id"]):
                return None
            values = [address["id"] if address else None]
        elif match["run"]:
            condition, values = "source_run_id = ? and name = ?", [match["run"], match["model"]]
        query = f"select model_id, artifact_location from logged_models where {condition} and status = {_READY}"
        active = "and lifecycle_stage = 'active' order by creation_timestamp_ms desc limit 1"
        rows = self._query(f"{query} {active}", values)
        if not rows:
            raise InputNotFoundError(f"{printable(uri)}: {self.path}: no such model")
        return rows[0]

    def _source(self, name: str, version: str | None, alias: str | None) -> str | None:
        number: object = int(version) if version else self.aliases(name).get(alias or "")
        rows = self._query(
            f"select source from model_versions where {_VERSION} and version = ?", [name, number]
        )
        return rows[0][0] if rows else None

    def _query(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            uri = f"file:{quote(str(self.path))}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
                return database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ServiceUnavailableError(
                f"{self.path}: cannot be read as an MLflow store ({error})"
            ) from None
