"""The jobs of a sweep that are checked before the first one runs."""

from collections.abc import Iterable, Mapping
from math import ceil, prod
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig

from mlxlab.config.check import resolve
from mlxlab.config.hydra.overrides import parse
from mlxlab.config.hydra.search_space import probes, split_space
from mlxlab.config.issues import ConfigIssue, LocateKey, join_key, one_line
from mlxlab.config.schema.validate import Validator
from mlxlab.errors import ConfigError
from mlxlab.nearest import suggestion

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
_OWN_PLUGINS = "hydra_plugins.mlxlab_sweep."
_GRID_SWEEPER = f"{_OWN_PLUGINS}GridSweeper"
_BASIC_KEYS = ("max_batch_size", "params")
_MAX_JOBS = 100_000
_PATH, _LAUNCHER = "hydra.sweeper", "hydra.launcher"
_PARAMS = f"{_PATH}.params"


def jobs_to_check(
    typed: dict[str, Override], master: DictConfig | None, issues: list[ConfigIssue]
) -> list[list[str]]:
    """The overrides of each job of a grid; of a search, those of jobs that use every choice and both ends of intervals.

    Errors in `hydra.sweeper.params` and in the search space are added to `issues`.

    Args:
        master: the config of the whole sweep; None if it cannot be composed.
    """
    if master is None:
        return _grid(
            {text: override for text, override in typed.items() if not override.is_sweep_override()}
        )
    sweeper = master.hydra.sweeper
    if not isinstance(sweeper, DictConfig):
        raise ConfigError(
            f"{_PATH}={one_line(str(sweeper), 120)}: expected a component; choose one with hydra/sweeper=..."
        )
    params = sweeper.get("params") if isinstance(sweeper.get("params"), DictConfig) else {}
    in_file, file_issues = parse(params_not_typed(params, typed.values()), multirun=True)
    issues += [ConfigIssue(f"{_PARAMS}.{issue.path}", issue.message) for issue in file_issues]
    is_grid = (
        sweeper.get("_target_") in (_BASIC_SWEEPER, _GRID_SWEEPER)
        or sweeper.get("sampler") == "grid"
    )
    return _grid(in_file | typed) if is_grid else _search(in_file | typed, issues)


def params_not_typed(params: Mapping[Any, object], typed: Iterable[Override]) -> list[str]:
    """`hydra.sweeper.params` as overrides, without the keys that are typed: what is typed counts."""
    names = [override.get_key_element() for override in typed]
    return [f"{key}={value}" for key, value in params.items() if str(key) not in names]


def sweep_issues(hydra: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """The errors in `hydra.sweeper` and `hydra.launcher`; launchers of plugins have a schema of their own."""
    issues = _sweeper_issues(hydra.sweeper)
    target = str(hydra.launcher.get("_target_"))
    if target.startswith(_OWN_PLUGINS):
        issues += _node_issues(hydra.launcher, _LAUNCHER)
    elif target.startswith("mlxlab."):
        issues.append(ConfigIssue(f"{_LAUNCHER}._target_", f"{target} is not a launcher"))
    return [ConfigIssue(label(issue.path), issue.message) for issue in issues]


def _sweeper_issues(sweeper: DictConfig) -> list[ConfigIssue]:
    if sweeper.get("_target_") != _BASIC_SWEEPER:
        return _node_issues(sweeper, _PATH)
    unknown = [
        key
        for key in map(str, sweeper)
        if key not in (*_BASIC_KEYS, "_target_", "_recursive_", "_convert_")
    ]
    return [
        ConfigIssue(f"{_PATH}.{key}", f"unknown key{suggestion(key, _BASIC_KEYS)}")
        for key in unknown
    ]


def _node_issues(node: DictConfig, path: str) -> list[ConfigIssue]:
    values, unresolved = resolve(node)
    issues = list(Validator().node(values, str(values.get("_target_")), path))
    return issues + [ConfigIssue(join_key(path, issue.path), issue.message) for issue in unresolved]


def _grid(overrides: dict[str, Override]) -> list[list[str]]:
    """Every combination of the values."""
    fixed = [text for text, override in overrides.items() if override.is_hydra_override()]
    swept = [override for text, override in overrides.items() if text not in fixed]
    for override in swept:
        if override.value_type == ValueType.INTERVAL_SWEEP:
            others = "a grid takes values, choice(...) or range(...)"
            raise ConfigError(
                f"{override.input_line}: an interval needs hydra/sweeper=search; {others}"
            )
    _check_num_jobs(swept)
    try:
        [jobs] = BasicSweeper.split_arguments(swept, None)
    except HydraException as error:
        raise ConfigError(
            f"-m: {one_line(str(error))}; give values, choice(...) or range(...)"
        ) from error
    return [fixed + job for job in jobs]


def _check_num_jobs(swept: list[Override]) -> None:
    """Raises ConfigError for more jobs than a sweep may have, before they are enumerated."""
    counts = {override.input_line: _num_values(override) for override in swept}
    num_jobs = prod(counts.values())
    if num_jobs > _MAX_JOBS:
        largest = max(counts, key=lambda text: counts[text])
        raise ConfigError(f"{largest}: {num_jobs:,} jobs; expected at most {_MAX_JOBS:,}")


def _num_values(override: Override) -> int:
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep) and value.step:
        assert value.start is not None
        assert value.stop is not None
        return max(ceil((value.stop - value.start) / value.step), 1)
    return 1


def _search(overrides: dict[str, Override], issues: list[ConfigIssue]) -> list[list[str]]:
    fixed, domains, space_issues = split_space(overrides)
    issues += space_issues
    if not domains and not space_issues:
        expected = "expected a key with interval(...), range(...) or choice(...)"
        issues.append(ConfigIssue("hydra/sweeper", f"nothing to search; {expected}"))
    return [[*fixed, *point] for point in probes(domains)]
