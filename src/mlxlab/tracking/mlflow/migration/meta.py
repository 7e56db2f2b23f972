"""Reads `meta.yaml` of a file store: a small mapping, without aliases or tags."""

from pathlib import Path
from typing import TypeVar

from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, read_text, validate

MAX_BYTES = 2**20
MAX_DEPTH = 8

T = TypeVar("T")


class Meta:
    """The values of a `meta.yaml`; a missing key is None. DataError for a value of another type."""

    def __init__(self, path: Path, values: dict[str, object]) -> None:
        self.path, self.values = path, values

    def text(self, key: str) -> str | None:
        return self._get(key, str)

    def integer(self, key: str) -> int | None:
        return self._get(key, int)

    def mapping(self, key: str) -> dict[str, str]:
        return self._get(key, dict[str, str]) or {}

    def _get(self, key: str, kind: type[T]) -> T | None:
        try:
            value: T | None = validate(self.values.get(key), kind | None, key)
        except ShapeError as error:
            raise DataError(f"{self.path}: {error}") from None
        return value


def read_meta(path: Path) -> Meta:
    """Raises InputNotFoundError, or DataError if it is no mapping within the limits."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = read_text(path, max_bytes=MAX_BYTES)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
                event, yaml.CollectionEndEvent
            )
            if isinstance(event, yaml.AliasEvent) or depth > MAX_DEPTH:
                raise DataError(f"{path}: aliases and deep nesting are not read")
        values = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{path}: not valid YAML ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected keys and values")
    return Meta(path, values)
