"""The source from which Hydra reads config files: conf/, `--config-dir` and search paths, within the limits."""

import os
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.errors import NotAllowedError


class ValidatedFileSource(FileConfigSource):
    """Hydra's files, each checked before values are made of it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        file = read_yaml(path)
        header = self._get_header_dict(file.text[:512])
        return ConfigResult(self.provider, f"file://{self.path}", OmegaConf.create(file.values), header)


def _package(provider: str, path: str) -> ConfigSource:
    """`pkg://` imports the package it names: only Hydra and its installed plugins may ask for that."""
    if provider.startswith("hydra.searchpath"):
        raise NotAllowedError(
            f"hydra.searchpath: refused: {path} is code, not a folder of config files; use --config-dir"
        )
    return ImportlibResourcesConfigSource(provider, path)


def install_config_source() -> None:
    """From now on Hydra reads files within the limits. Call before a search path is made."""
    Plugins.instance()  # registers Hydra's own sources first
    types: dict[str, Any] = SourcesRegistry.instance().types
    types.update(file=ValidatedFileSource, pkg=_package)
