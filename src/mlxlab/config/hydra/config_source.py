"""The source from which Hydra reads config files, with checks before parsing.

Replaces Hydra's own source for `file://`, so conf/, `--config-dir` and search paths all pass through `guard`.
"""

import os
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.errors import NotAllowedError


class ValidatedFileSource(ConfigSource):
    """Hydra's files, each looked at before it is parsed; what is parsed is what was looked at."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider=provider, path=path if "://" in path else f"file://{path}")
        self._files = FileConfigSource(provider=provider, path=path)

    @staticmethod
    def scheme() -> str:
        return "file"

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        text = read_yaml(path).text
        return ConfigResult(
            provider=self.provider,
            path=f"file://{self.path}",
            config=OmegaConf.create(text),
            header=self._get_header_dict(text[:512]),
        )

    def available(self) -> bool:
        return self._files.available()

    def is_group(self, config_path: str) -> bool:
        return self._files.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return self._files.is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return self._files.list(config_path, results_filter)


def _package(provider: str, path: str) -> ConfigSource:
    """`pkg://` imports the package it names: only Hydra and its installed plugins may ask for that."""
    if provider.startswith("hydra.searchpath"):
        raise NotAllowedError(
            f"hydra.searchpath: refused: {path} is code, not a folder of config files; use --config-dir"
        )
    return ImportlibResourcesConfigSource(provider, path)


def install_config_source() -> None:
    """From now on Hydra reads files through the guard. Call before a search path is made."""
    Plugins.instance()  # registers Hydra's own sources first
    types: dict[str, Any] = SourcesRegistry.instance().types
    types.update(file=ValidatedFileSource, pkg=_package)
