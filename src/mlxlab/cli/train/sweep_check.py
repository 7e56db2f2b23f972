"""Checks every job of a sweep before the first one starts; with `--dry-run`, lists them."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf, read_write

from mlxlab import terminal
from mlxlab.config.check import labelled, resolve
from mlxlab.config.hydra.compose import find_issues
from mlxlab.config.hydra.job import check_folder, job_config
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.schema.validate import Checker
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import refuse_links
from mlxlab.run.entry import check_named_files, check_named_run, check_split_of
from mlxlab.schema.dotted_keys import join_key, override_name
from mlxlab.sweep import is_ours
from mlxlab.sweep.jobs_to_check import jobs_to_check
from mlxlab.terminal.wording import counted, one_line
from mlxlab.training.distributed.launch_env import check_parallel, is_launched

_MAX_ROWS = 100


def check_sweep(config: DictConfig) -> list[list[str]]:
    """Checks a sweep and all its jobs; returns the overrides of each job.

    Raises:
        ConfigError, NotAllowedError, InputNotFoundError: something is wrong with a job, or the sweep.
    """
    if is_launched():
        raise ConfigError(
            "-m: expected a single process for a sweep, got a launcher; start its jobs one by one"
        )
    issues = _plugin_issues(config)
    if issues:
        raise ConfigError(format_issues(issues))
    with job_config(config):
        check_folder(config, "hydra.sweep.dir")
        refuse_links(Path(config.hydra.sweep.dir))
    jobs = jobs_to_check(config)
    _check_jobs(config, jobs)
    return jobs


def show_sweep(jobs: list[list[str]]) -> None:
    """Prints the jobs that were checked: those of a grid, or of a search some with every choice and end."""
    lines = [f"{counted(len(jobs), 'job')} checked"]
    for number, texts in enumerate(jobs[:_MAX_ROWS]):
        lines.append(f"{number}: {' '.join(texts)}")
    if len(jobs) > _MAX_ROWS:
        lines.append(f"... and {len(jobs) - _MAX_ROWS} more")
    terminal.show("\n".join(lines))


def _check_jobs(config: DictConfig, jobs: list[list[str]]) -> None:
    issues: list[ConfigIssue] = []
    hydra = as_typed(config.hydra.overrides.hydra)
    name = str(config.hydra.job.config_name)
    objectives: dict[str, None] = {}
    forced: set[str] = set()
    for texts in jobs:
        job, found = find_issues([*hydra, *texts], name)
        issues += found
        if job is None or issues:
            continue
        check_named_run(job.resume)
        data, _ = resolve(job.data)
        check_named_files(data)
        check_split_of(data)
        check_parallel(job.trainer.parallel)
        objectives[str(job.objective)] = None
        composed = as_typed(job.hydra.overrides.task)
        forced |= {override_name(text) for text in composed if text.startswith("++")}
    if len(objectives) > 1:
        names = " and ".join(objectives)
        issues.append(ConfigIssue("objective", f"the jobs have {names}; choose one: objective=..."))
    if issues:
        raise ConfigError(format_issues(issues))
    if not jobs:
        raise ConfigError("the sweep is empty: one of its ranges has no values")
    _complete(config, forced, next(iter(objectives)))


def _complete(config: DictConfig, forced: set[str], objective: str) -> None:
    """Gives the config of the sweep what its jobs have in common.

    Args:
        forced: keys that a job only has if they are added, as those of `tags`.
    """
    config.objective = objective  # A swept option may have set it in the jobs alone.
    texts = as_typed(config.hydra.overrides.task)
    with read_write(config.hydra):
        config.hydra.overrides.task = [
            f"++{text.lstrip('+')}" if override_name(text) in forced else text for text in texts
        ]


def _plugin_issues(config: DictConfig) -> list[ConfigIssue]:
    """The errors in the sweeper and the launcher; those of plugins have a schema of their own."""
    issues = []
    for name in ("hydra.sweeper", "hydra.launcher"):
        node = config.hydra[name.partition(".")[2]]
        if not isinstance(node, DictConfig) or "_target_" not in node:
            expected = f"expected a component; choose one with {name.replace('.', '/')}=..."
            issues.append(ConfigIssue(f"{name}={one_line(str(node), 120)}", expected))
        elif is_ours(node):
            values, unresolved = resolve(node)
            issues += Checker(values).check_node(values, str(node._target_), name)
            issues += [ConfigIssue(join_key(name, each.path), each.message) for each in unresolved]
    if not issues and not is_ours(config.hydra.sweeper):
        if is_ours(config.hydra.launcher):
            expected = "expected hydra/launcher=basic or one of a plugin"
            issues.append(ConfigIssue("hydra/sweeper", expected))
        size = config.hydra.sweeper.get("max_batch_size")  # Hydra's own sweeper asserts it.
        if size is not None and size < 1:
            expected = f"expected at least 1, or null, got {size}"
            issues.append(ConfigIssue("hydra.sweeper.max_batch_size", expected))
    return labelled(issues, {"hydra": OmegaConf.to_container(config.hydra, resolve=False)})
