"""The config node `backend`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class BackendOptions:
    """What a run computes with.

    Args:
        native: auto uses the native CPU kernels once they are built, which the first run starts in the background;
            require builds them first, or refuses the run; off uses those of MLX. MLXLAB_NATIVE replaces it.
    """

    native: Literal["auto", "off", "require"]
