"""The jobs of a grid, and those of a sweep that are checked before the first one runs."""

import itertools
from math import prod

from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig

from mlxlab.config.hydra.job import as_typed, parse
from mlxlab.errors import ConfigError
from mlxlab.record.run_record import MAX_JOBS
from mlxlab.terminal.wording import one_line

_GRID_SWEEPERS = ("BasicSweeper", "GridSweeper")


def sweep_overrides(sweep: DictConfig) -> dict[str, Override]:
    """The overrides of all jobs by key; those that are typed count more than `hydra.sweeper.params`.

    Raises:
        ConfigError: one of `params` cannot be read.
    """
    typed, _ = parse(as_typed(sweep.hydra.overrides.task), multirun=True)
    names = [each.get_key_element() for each in typed.values()]
    params = sweep.hydra.sweeper.get("params") or {}
    texts = [f"{key}={value}" for key, value in params.items() if str(key) not in names]
    in_file, issues = parse(texts, multirun=True)
    if issues:
        faults = [f"hydra.sweeper.params.{issue.path}: {issue.message}" for issue in issues]
        raise ConfigError("\n".join(faults))
    return {each.get_key_element(): each for each in [*in_file.values(), *typed.values()]}


def jobs_to_check(sweep: DictConfig) -> list[list[str]]:
    """The overrides of each job of a grid; of a search, those of jobs that use every choice and both ends of intervals.

    Raises:
        ConfigError: the jobs are too many, or a value cannot be swept.
    """
    overrides = sweep_overrides(sweep)
    sweeper = sweep.hydra.sweeper
    class_name = str(sweeper.get("_target_")).rpartition(".")[2]
    if class_name in _GRID_SWEEPERS:
        return expand(overrides)
    from mlxlab.sweep import search_space  # It imports Optuna, which takes 0.5 s.

    fixed, domains = search_space.split_space(overrides.values())
    probes = search_space.probes(domains)
    return [[*fixed, *search_space.override_texts(point)] for point in probes]


def expand(overrides: dict[str, Override]) -> list[list[str]]:
    """The overrides of each job; the values of the last key change fastest.

    Raises:
        ConfigError: they are too many, or not from a finite number of values.
    """
    try:
        values = {key: _texts(key, override) for key, override in overrides.items()}
    except HydraException as error:
        raise ConfigError(f"-m: {one_line(str(error))}") from error
    if prod(map(len, values.values())) > MAX_JOBS:
        raise ConfigError(f"-m: expected at most {MAX_JOBS:,} jobs, got more")
    return [list(texts) for texts in dict.fromkeys(itertools.product(*values.values()))]


def _texts(key: str, override: Override) -> list[str]:
    """The overrides that one key gets in turn, of a long range one too many."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.value_type == ValueType.INTERVAL_SWEEP:
        raise ConfigError(f"{override.input_line}: an interval needs hydra/sweeper=search")
    values = itertools.islice(override.sweep_string_iterator(), MAX_JOBS + 1)
    return [f"{key}={value}" for value in values]
