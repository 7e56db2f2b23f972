"""Composes config files and overrides into one checked config, or reports what is wrong, one line each."""

import copy
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.callbacks import Callbacks as Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra as Hydra
from hydra._internal.utils import create_config_search_path
from hydra._internal.utils import get_args_parser as get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.allowlist import find_disallowed_in_hydra
from mlxlab.config.check import config_issues
from mlxlab.config.hydra.composition_errors import compose_forced, forced, origins
from mlxlab.config.hydra.config_source import install_config_source
from mlxlab.config.hydra.overrides import ParsedOverride, parse
from mlxlab.config.hydra.resolve import register_resolvers
from mlxlab.config.issues import ConfigIssue, LocateKey, format_issues, one_line
from mlxlab.errors import ConfigError, NotAllowedError, UserError

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


@dataclass
class Composer:
    """Composes the config of one command line.

    Args:
        conf: the folder of config files.
        overrides: as typed, without flags.
        extra: another folder of config files (`--config-dir`), or None.
        name: the primary config.
        multirun: True for `-m`.
    """

    conf: Path
    overrides: list[str] = field(default_factory=list)
    extra: Path | None = None
    name: str = "train"
    multirun: bool = False

    def open(self) -> Hydra:
        """Creates a Hydra that reads these folders with the limits of `yaml_limits`."""
        install_config_source()
        path = create_config_search_path(f"file://{self.conf}")
        if self.extra is not None:
            path.prepend("command-line", f"file://{self.extra}", SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2(task_name="train", config_search_path=path)
        register_resolvers()
        return hydra

    def checked(self, hydra: Hydra) -> DictConfig:
        """Returns the valid config with its `hydra:` node; for a sweep, every job has been checked as well.

        Raises:
            ConfigError: the config, or that of any job, is invalid; at most ten lines.
            NotAllowedError: it holds a target or key that may not be built or set.
        """
        typed, issues = parse(self.overrides, self.multirun)
        master = None if issues or not self.multirun else self._compose(hydra, self.overrides, RunMode.MULTIRUN)
        config: DictConfig | None = None
        for texts in self._jobs(typed, master) if self.multirun else [[override.text for override in typed]]:
            config = self._valid(hydra, texts, issues)
        if issues:
            raise ConfigError(format_issues(issues))
        if config is None:
            raise ConfigError("the sweep is empty: one of its ranges has no values")
        if not self.multirun:
            return config
        composed = [text for text in texts if not text.lstrip("+~").startswith("hydra")]
        if master is None or list(config.hydra.overrides.task) != composed:
            # Valid only if forced: a key of an open mapping, `tags.for=thesis`. Hydra composes each job again.
            self.overrides = forced(hydra, typed)[0]
            master = hydra.compose_config(self.name, list(self.overrides), RunMode.MULTIRUN)
        guard_hydra_node(master)
        return master

    def guard(self, hydra: Hydra) -> None:
        """Refuses a `hydra:` node that would act before the config is checked."""
        guard_hydra_node(hydra.compose_config(self.name, list(self.overrides), RunMode.RUN))

    def _jobs(self, typed: list[ParsedOverride], master: DictConfig | None) -> list[list[str]]:
        """The overrides of each point of the grid of a sweep."""
        if master is not None and master.hydra.sweeper.get("_target_") == _BASIC_SWEEPER:
            params = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
            grid = parse(params, multirun=True)[0] + typed
        else:  # another sweeper makes its own jobs
            grid = [override for override in typed if not override.parsed.is_sweep_override()]
        fixed = [override.text for override in grid if override.parsed.is_hydra_override()]
        swept = [override.parsed for override in grid if override.text not in fixed]
        try:
            [jobs] = BasicSweeper.split_arguments(swept, None)
        except HydraException as error:
            raise ConfigError(f"-m: {one_line(str(error))}; give values, choice(...) or range(...)") from error
        return [fixed + job for job in jobs]

    def _compose(self, hydra: Hydra, texts: list[str], mode: RunMode) -> DictConfig | None:
        with suppress(Exception):  # composing again with forced overrides explains it
            return hydra.compose_config(self.name, list(texts), mode)
        return None

    def _valid(self, hydra: Hydra, texts: list[str], issues: list[ConfigIssue]) -> DictConfig | None:
        """The config of one job; its errors are added to `issues`, labelled with their origin."""
        composed = list(texts)
        config = self._compose(hydra, texts, RunMode.RUN)
        if config is None:
            typed = parse(texts, multirun=True)[0]
            config, composed, composition_issues = compose_forced(hydra, self.name, typed)
            issues += composition_issues
        if config is not None:
            label = origins(hydra, self.name, texts, composed)
            guard_hydra_node(config, label)
            issues += [*_unnamed_folders(config, label), *_job_issues(config, label)]
        return config


def guard_hydra_node(config: DictConfig, label: LocateKey = str) -> None:
    """Refuses a `hydra:` node with keys that would run or write something on their own."""
    if disallowed := list(find_disallowed_in_hydra(OmegaConf.to_container(config.hydra, resolve=False))):
        raise NotAllowedError(format_issues(disallowed, label))


def without_hydra(config: DictConfig) -> DictConfig:
    """The config of the experiment, without the `hydra:` node."""
    task = copy.copy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task


def _unnamed_folders(config: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """Refuses run folders without a name: Hydra would use the current folder, or one called None."""
    issues = []
    for path in ("hydra.run.dir", "hydra.sweep.dir"):
        try:
            if OmegaConf.select(config, path) in (None, "", "-", "."):
                issues.append(ConfigIssue(label(path), "expected the path of a folder"))
        except (OmegaConfBaseException, UserError) as error:
            issues.append(ConfigIssue(label(path), one_line(str(error).partition("\n")[0])))
    return issues


def _job_issues(config: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """The errors in the config of a job, with HydraConfig set so that `${hydra:...}` resolves."""
    job = copy.deepcopy(config)
    with read_write(job), open_dict(job):  # placeholders for what Hydra sets only when the job runs
        if OmegaConf.is_missing(job.hydra.runtime, "output_dir"):
            job.hydra.runtime.output_dir = "(the run folder)"
        for key, value in (("num", 0), ("id", "0")):
            if OmegaConf.is_missing(job.hydra.job, key):
                job.hydra.job[key] = value
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        return config_issues(without_hydra(job), label)
    finally:
        HydraConfig.instance().cfg = before
