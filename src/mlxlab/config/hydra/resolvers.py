"""The resolvers `${name:...}` of conf/, in addition to those of OmegaConf and Hydra."""

import os
import re
import secrets

from omegaconf import OmegaConf

from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.redact import has_credentials

# A config is printed, stored and tracked, so only variables that never hold a secret can be read in one.
_READABLE = re.compile(r"MLXLAB_\w+|HOME|USER|TMPDIR|HOSTNAME|SCRATCH|SLURM_(JOB|ARRAY)_\w+")


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("oc.env", read_environment, replace=True)
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("if_set", lambda value, then, other: other if value is None else then, replace=True)
    OmegaConf.register_new_resolver("project", lambda: str(project_root()), replace=True)


def read_environment(name: str, *default: object) -> object:
    """The resolver behind `${oc.env:NAME}` and `${oc.env:NAME,default}`."""
    if not _READABLE.fullmatch(name):
        raise ConfigError(
            f"the environment variable {name} cannot be read in a config, which is printed and tracked; "
            f"name it MLXLAB_{name}"
        )
    value = os.environ.get(name)
    if value is None:
        if not default:
            raise ConfigError(f"the environment variable {name} is not set")
        return None if default[0] is None else str(default[0])
    if has_credentials(value):
        raise ConfigError(f"the environment variable {name} holds a URL with credentials; a config is tracked")
    return value
