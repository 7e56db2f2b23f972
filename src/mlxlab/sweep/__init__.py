"""Many runs from one command."""

from typing import Any

_PLUGINS = "hydra_plugins.mlxlab_sweep."


def is_ours(node: Any) -> bool:
    """Whether the config of a sweeper or a launcher is that of one of our plugins."""
    return str(node._target_).startswith(_PLUGINS)
