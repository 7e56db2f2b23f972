"""Locates the origin of a value in a composed config: an override as typed, or a line of a file."""

from functools import cached_property
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.types import RunMode

from mlxlab.config.hydra.composition_errors import config_folders, repository
from mlxlab.config.hydra.overrides import parse
from mlxlab.config.hydra.yaml_limits import YamlFile, read_yaml
from mlxlab.config.issues import format_key, one_line, split_key
from mlxlab.config.paths import display_path
from mlxlab.errors import ConfigError


class ValueOrigins:
    """The origins of the values of one job. Files are read on first use, that is only after an error.

    Args:
        typed: the overrides as typed.
        composed: the overrides that could be composed.
    """

    def __init__(self, hydra: Hydra, name: str, typed: list[str], composed: list[str]) -> None:
        self._hydra, self._name, self._overrides, self._composed = hydra, name, typed, composed

    def label(self, path: str) -> str:
        """`trainer.epochs=x`, or `conf/trainer/simple.yaml:12: trainer.epochs`, or the key alone."""
        names, text = split_key(path), None
        for override in parse(self._overrides, multirun=True)[0]:
            group, key = override.parsed.key_or_group, tuple(override.key.split("."))
            is_group = not override.parsed.is_delete() and repository(self._hydra).group_exists(group)
            if names[: len(key)] == key and not is_group:
                text = one_line(override.text, 120)
        if text is not None:
            return text
        for depth in range(len(names), 0, -1):
            ancestor = format_key(names[:depth])
            for package, file, content in reversed(self._files):
                inside = ancestor.removeprefix(f"{package}." if package else "")
                if (not package or inside != ancestor) and inside in content.lines:
                    return f"{display_path(file)}:{content.lines[inside]}: {path}"
        return path

    @cached_property
    def _files(self) -> list[tuple[str, Path, YamlFile]]:
        """(package, file, content) in the order in which they are merged."""
        try:
            loader = self._hydra.config_loader
            defaults = loader.compute_defaults_list(self._name, self._composed, RunMode.RUN).defaults
        except Exception:
            return []  # a failed label must not hide the error itself
        contents = []
        for default in defaults:
            config = default.config_path or ""
            files = [(folder / f"{config}.yaml").resolve() for folder in config_folders(self._hydra)]
            file = next((file for file in files if file.is_file()), None)
            if file is not None and not config.startswith("hydra/"):
                try:
                    contents.append((default.package or "", file, read_yaml(file)))
                except ConfigError:
                    continue
        return contents
