"""Refuses a `hydra:` node that would run or write something on its own: Hydra acts on it before our code runs."""

import re
from collections.abc import Iterable, Iterator

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.instantiate import find_disallowed
from mlxlab.config.issues import ConfigIssue, LocateKey, format_issues, join_key, walk
from mlxlab.errors import NotAllowedError

# The keys that Hydra instantiates, and the classes of Hydra and its plugins that are allowed there.
_COMPONENTS = ("callbacks", "launcher", "sweeper")
_TARGETS = (
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "hydra_plugins.mlxlab_sweep.GridSweeper",
    "hydra_plugins.mlxlab_sweep.PairedSweeper",
    "hydra_plugins.mlxlab_sweep.ProcessLauncher",
    "hydra_plugins.mlxlab_sweep.SearchSweeper",
)
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler")
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_REFERENCE = re.compile(r"(ext|cfg)://(?!sys\.(stdout|stderr)\Z)")
_SETTABLE = re.compile(
    r"(OMP|OPENBLAS|MKL|VECLIB|RAYON|TOKENIZERS)_[A-Z_]+|MLXLAB_(JOB|TRIAL)_[A-Z_]+"
)


def guard_hydra_node(node: DictConfig, label: LocateKey = str) -> None:
    """Raises NotAllowedError for all of a `hydra:` node that would run code or change the environment."""
    if disallowed := list(_find_disallowed(OmegaConf.to_container(node, resolve=False))):
        raise NotAllowedError(format_issues(disallowed, label))


def _find_disallowed(hydra: object) -> Iterator[ConfigIssue]:
    assert isinstance(hydra, dict)  # Hydra's own schema
    for name in _COMPONENTS:
        node = hydra.get(name)
        if not isinstance(node, dict):
            yield ConfigIssue(
                f"hydra.{name}", f"refused: expected a component; choose one with hydra/{name}=..."
            )
        elif node.get("_target_") in _TARGETS:  # Hydra's own may be told not to recurse
            node = {
                key: node[key]
                for key in node
                if key not in ("_target_", "_recursive_", "_convert_")
            }
        yield from find_disallowed(node, f"hydra.{name}")
    for name in ("job_logging", "hydra_logging"):
        for path, node in walk(hydra.get(name), f"hydra.{name}"):
            yield from _disallowed_logging(node, path)
    job = hydra.get("job")
    yield from _disallowed_variables(job if isinstance(job, dict) else {})
    folders = hydra.get("searchpath")
    for entry in folders if isinstance(folders, list) else ():
        if not isinstance(entry, str) or ("://" in entry and not entry.startswith("file://")):
            yield ConfigIssue(
                "hydra.searchpath", f"refused: {entry} is code, not a folder of config files"
            )
    checked = {key: value for key, value in hydra.items() if key not in _COMPONENTS}
    yield from (
        issue for issue in find_disallowed(checked, "hydra") if issue.path.endswith("._target_")
    )


def _disallowed_variables(job: dict[str, Iterable[str] | None]) -> Iterator[ConfigIssue]:
    """Environment variables that a config may not set. Hydra has added those of `env_copy` to `env_set`."""
    copied = list(job.get("env_copy") or ())
    for name in dict.fromkeys([*(job.get("env_set") or ()), *copied]):
        if not _SETTABLE.fullmatch(str(name)):
            path = "hydra.job.env_copy" if name in copied else join_key("hydra.job.env_set", name)
            yield ConfigIssue(
                path, f"refused: a config may not set the environment variable {name}"
            )


def _disallowed_logging(node: object, path: str) -> Iterator[ConfigIssue]:
    """A logging config may name any callable: only handlers that write to the terminal or Hydra's own file pass."""
    if isinstance(node, str) and _REFERENCE.match(node):
        yield ConfigIssue(path, f"refused: {node}")
    if not isinstance(node, dict):
        return
    if "()" in node or ".()" in node:
        yield ConfigIssue(path, "refused: a logging config may not call anything")
    if "class" in node and node["class"] not in _HANDLERS:
        yield ConfigIssue(
            f"{path}.class", f"refused: {node['class']} is not a handler that may be used"
        )
    if node.get("filename", _LOG_FILE) != _LOG_FILE:
        yield ConfigIssue(f"{path}.filename", "refused: the log file must be in the run folder")
