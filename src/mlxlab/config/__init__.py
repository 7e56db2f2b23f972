"""Configuration: `check` before anything is made, `build` to make it."""

from typing import TYPE_CHECKING, Any

from mlxlab.config.places import conf_dir, project_root

if TYPE_CHECKING:
    from mlxlab.config.building import build
    from mlxlab.config.checking import check

__all__ = ["build", "check", "conf_dir", "project_root"]


def __getattr__(name: str) -> Any:
    # `--help` reads schemas from this package and must not pay for OmegaConf.
    if name == "check":
        from mlxlab.config.checking import check

        return check
    if name == "build":
        from mlxlab.config.building import build

        return build
    raise AttributeError(name)
