"""What the server of the jobs imports before it forks their processes.

On Linux with the CPU backend, MLX may be imported: it starts its threads with the first evaluation.
Nothing that is imported here may evaluate an array: a child would wait forever for a thread of its parent.
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

_WITHOUT_MLX = (
    "numpy.random",
    "mlxlab.sweep.child",
    "mlxlab.run.entry",
    "mlxlab.run.context",
    "tokenizers",
    "safetensors.numpy",
    "xxhash",
)
_WITH_MLX = (
    "mlx.core",
    "mlx.nn",
    "mlx.optimizers",
    "mlxlab.run.train",
    "mlxlab.past_runs.collect_record",
    "mlxlab.views.pages",
)
_BASELINES = (
    "mlxlab.models.baselines.predict",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.svm",
)


def modules(config: DictConfig, task_module: str) -> list[str]:
    """The modules to import, in order, for the jobs of a config."""
    first = [task_module, *_WITHOUT_MLX]
    if not can_fork_mlx():
        return first
    baselines = _BASELINES if OmegaConf.select(config, "data.baselines") else ()
    return [*first, *_WITH_MLX, *baselines, *_target_modules(config)]


def can_fork_mlx() -> bool:
    """Whether a process that has imported MLX may be forked: neither Metal nor CUDA allow it."""
    spec = find_spec("mlx")
    folders = spec.submodule_search_locations if spec else None
    if sys.platform != "linux" or not folders:
        return False
    installed = Path(folders[0]).parent
    return not any(installed.glob("mlx_cuda*"))


def _target_modules(config: DictConfig) -> list[str]:
    """The modules of mlxlab that the components of a config are in."""
    targets = re.findall(r"_target_: (mlxlab\..+)\.\w+", OmegaConf.to_yaml(config))
    return sorted(set(targets))
