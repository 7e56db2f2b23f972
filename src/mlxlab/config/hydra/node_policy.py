"""Policy for the `hydra:` node, which acts before the program: callbacks, launcher, logging, environment."""

import re
from typing import Any

from mlxlab.config.allowlist import HYDRA_TARGETS, find_disallowed
from mlxlab.config.findings import ConfigIssue

# Where Hydra instantiates something itself.
_BUILT = ("callbacks", "launcher", "sweeper")
_HANDLERS = {"logging.StreamHandler", "logging.FileHandler"}
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_MAY_SET = re.compile(r"(OMP|OPENBLAS|MKL|VECLIB|RAYON|TOKENIZERS)_[A-Z_]+|MLXLAB_(JOB|TRIAL)_[A-Z_]+")


def disallowed_hydra_keys(hydra: dict[str, Any]) -> list[ConfigIssue]:
    """Everything in the unresolved `hydra:` node that would run code, write elsewhere or change the environment."""
    issues: list[ConfigIssue] = []
    for name in _BUILT:
        if not isinstance(hydra.get(name), dict):
            issues.append(ConfigIssue(f"hydra.{name}", "refused: expected a component"))
        issues += _foreign(hydra.get(name), f"hydra.{name}")
    for name in ("job_logging", "hydra_logging"):
        issues += _logging(hydra.get(name), f"hydra.{name}")
    job = hydra.get("job") or {}
    names = [*(job.get("env_set") or {}), *(job.get("env_copy") or [])]
    issues += [
        ConfigIssue(f"hydra.job.env_set.{name}", "refused: a config may not set this environment variable")
        for name in names
        if not _MAY_SET.fullmatch(str(name))
    ]
    for entry in hydra.get("searchpath") or []:
        if not isinstance(entry, str) or ("://" in entry and not entry.startswith("file://")):
            issues.append(ConfigIssue("hydra.searchpath", f"refused: {entry} is code, not a folder of config files"))
    rest = {key: value for key, value in hydra.items() if key not in _BUILT}
    return issues + [fault for fault in find_disallowed(rest, "hydra") if fault.path.rpartition(".")[2] == "_target_"]


def _foreign(node: object, path: str) -> list[ConfigIssue]:
    """As everywhere, but Hydra's own launcher and sweeper are parts too, and may be told not to recurse."""
    if isinstance(node, dict) and node.get("_target_") in HYDRA_TARGETS:
        node = {key: value for key, value in node.items() if key not in ("_target_", "_recursive_", "_convert_")}
    return find_disallowed(node, path)


def _logging(node: object, path: str) -> list[ConfigIssue]:
    """A logging config may name any callable: only handlers that write to the terminal or Hydra's own file pass."""
    issues: list[ConfigIssue] = []
    if not isinstance(node, dict):
        return issues
    if "()" in node or ".()" in node:
        issues.append(ConfigIssue(path, "refused: a logging config may not call anything"))
    if "class" in node and node["class"] not in _HANDLERS:
        issues.append(ConfigIssue(f"{path}.class", f"refused: {node['class']} is not a handler that may be used"))
    if "filename" in node and node["filename"] != _LOG_FILE:
        issues.append(ConfigIssue(f"{path}.filename", "refused: the log file stands in the run folder"))
    for key, value in node.items():
        if isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value[6:] not in _STREAMS:
            issues.append(ConfigIssue(f"{path}.{key}", f"refused: {value}"))
        issues += _logging(value, f"{path}.{key}")
    return issues


_STREAMS = {"sys.stdout", "sys.stderr"}
