"""Where Hydra reads configs from: files within limits, no package that an override names, and mlxlab's own defaults.

They hold for one loader: other programs with Hydra in this process, and workers of launchers, keep Hydra's.
"""

import os
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.core_plugins import structured_config_source
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigLoadError, ConfigResult
from omegaconf import OmegaConf, open_dict

from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.errors import NotAllowedError

# An `override hydra/launcher` in the primary config would silently win over that of an experiment.
_DEFAULT_OPTIONS = {"launcher": "isolated", "sweeper": "grid"}


class ValidatedFileSource(FileConfigSource):
    """Hydra's files of conf/, `--config-dir` and search paths, each checked before values are made of it."""

    def load_config(self, config_path: str) -> ConfigResult:
        path = Path(
            os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path)))
        )
        if not path.exists():
            raise ConfigLoadError(f"Config not found : {path}")
        file = read_yaml(path)
        header = self._get_header_dict(file.text[:512])
        return ConfigResult(
            self.provider, f"file://{self.path}", OmegaConf.create(file.values), header
        )


class StructuredConfigSource(
    structured_config_source.StructuredConfigSource
):  # Hydra looks for a class of this name
    """Hydra's own configs, with the launcher and the sweeper of mlxlab by default."""

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        if self._normalize_file_name(config_path) == "hydra/config.yaml":
            for default in result.config["defaults"]:
                with open_dict(default):
                    default.update(
                        {
                            group: option
                            for group, option in _DEFAULT_OPTIONS.items()
                            if group in default
                        }
                    )
        return result


class _Repository(ConfigRepository):
    """Also for a search path that a config extends."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        for entry in config_search_path.get_path():
            if str(entry.path).startswith("pkg://") and str(entry.provider).startswith(
                "hydra.searchpath"
            ):
                why = f"{entry.path} is code, not a folder of files; use --config-dir"
                raise NotAllowedError(f"hydra.searchpath: refused: {why}")
        super().initialize_sources(config_search_path)
        own = {"file": ValidatedFileSource, "structured": StructuredConfigSource}
        for index, source in enumerate(self.sources):
            if kind := own.get(source.scheme()):
                self.sources[index] = kind(source.provider, f"{source.scheme()}://{source.path}")


def use_own_sources(loader: ConfigLoader) -> None:
    """Makes a loader read from these."""
    assert isinstance(loader, ConfigLoaderImpl)
    loader.repository = _Repository(loader.get_search_path())
