"""Configuration: `check` before anything is made, `build` to make it."""

from typing import TYPE_CHECKING, Any

from mlxlab.config.places import conf_dir, project_root

if TYPE_CHECKING:
    from mlxlab.config.building import build
    from mlxlab.config.checking import check


def typed_overrides() -> list[str]:
    """What the user typed for the job that is running; empty outside of one."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def choices() -> dict[str, str]:
    """Group -> option, of the job that is running; empty outside of one."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {str(group): str(option) for group, option in chosen.items() if option and not group.startswith("hydra/")}


__all__ = ["build", "check", "choices", "conf_dir", "project_root", "typed_overrides"]


def __getattr__(name: str) -> Any:
    # `--help` reads schemas from this package and must not pay for OmegaConf.
    if name == "check":
        from mlxlab.config.checking import check

        return check
    if name == "build":
        from mlxlab.config.building import build

        return build
    raise AttributeError(name)
