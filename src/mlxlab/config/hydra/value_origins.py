"""Locates the origin of a value in a composed config: an override as typed, or a line of a file."""

from functools import cached_property
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode

from mlxlab.config.findings import one_line
from mlxlab.config.hydra.overrides import parse
from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.key_path import format_key, split_key
from mlxlab.config.paths import display_path
from mlxlab.errors import ConfigError


class ValueOrigins:
    """The origins of the values of one job. Files are read on first use, that is only after an error.

    Args:
        typed: the overrides as typed.
        composed: the overrides that could be composed.
    """

    def __init__(self, loader: ConfigLoader, name: str, typed: list[str], composed: list[str]) -> None:
        self._loader, self._name, self._overrides, self._composed = loader, name, typed, composed

    def label(self, path: str) -> str:
        """`trainer.epochs=x`, or `conf/trainer/simple.yaml:12: trainer.epochs`, or the key alone."""
        return self._typed(path) or self._written(path) or path

    def _typed(self, path: str) -> str | None:
        names = split_key(path)
        text = None
        for typed in parse(self._overrides, multirun=True)[0]:
            key = tuple(typed.key.split("."))
            if names[: len(key)] == key and not self._is_group(typed.parsed.key_or_group, typed.parsed.is_delete()):
                text = one_line(typed.text, 120)
        return text

    def _is_group(self, key: str, deleted: bool) -> bool:
        return not deleted and self._loader.repository.group_exists(key)  # type: ignore[attr-defined]

    def _written(self, path: str) -> str | None:
        names = split_key(path)
        for depth in range(len(names), 0, -1):
            ancestor = format_key(names[:depth])
            for package, file in reversed(self._files):
                inside = ancestor.removeprefix(f"{package}." if package else "")
                if (package and inside == ancestor) or inside not in read_yaml(file).lines:
                    continue
                return f"{display_path(file)}:{read_yaml(file).lines[inside]}: {path}"
        return None

    @cached_property
    def _files(self) -> list[tuple[str, Path]]:
        """(package, file) in the order in which they are merged."""
        try:
            defaults = self._loader.compute_defaults_list(self._name, self._composed, RunMode.RUN).defaults
        except Exception:
            return []  # a failed label must not hide the error itself
        files = []
        for default in defaults:
            file = self._file(default.config_path or "")
            if file is not None and not (default.config_path or "").startswith("hydra/"):
                files.append((default.package or "", file))
        return files

    def _file(self, config_path: str) -> Path | None:
        for source in self._loader.get_sources():
            file = Path(source.path) / f"{config_path}.yaml"
            if source.scheme() == "file" and file.is_file():
                try:
                    read_yaml(file.resolve())
                except ConfigError:
                    return None
                return file.resolve()
        return None
