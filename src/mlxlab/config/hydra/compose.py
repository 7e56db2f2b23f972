"""Composes config files and overrides into one checked config, or reports what is wrong, one line each."""

import copy
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks as Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra._internal.utils import get_args_parser as get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.check import config_issues, register_resolvers, resolve
from mlxlab.config.hydra.composition_errors import compose_valid, forced, locate
from mlxlab.config.hydra.guard import guard_hydra_node
from mlxlab.config.hydra.overrides import as_typed, parse
from mlxlab.config.hydra.sources import use_own_sources
from mlxlab.config.hydra.sweep_jobs import jobs_to_check, sweep_issues
from mlxlab.config.issues import ConfigIssue, LocateKey, format_issues, one_line
from mlxlab.config.plugins import plugins
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError, UserError, hides_interrupt

NO_SIZES = ["model/size=none"]


@dataclass
class Composer:
    """Composes the config of one command line from the files of `conf` and of plugins."""

    conf: Path
    overrides: list[str] = field(default_factory=list)  # as typed, without flags
    extra: Path | None = None  # another folder of config files (`--config-dir`)
    name: str = "train"  # of the primary config
    multirun: bool = False  # `-m`
    choices: Callable[[], dict[str, str]] = dict  # options of the run that is resumed, by group
    check_job: Callable[[DictConfig], None] = lambda config: None  # of a sweep, with a valid config

    @cached_property
    def hydra(self) -> Hydra:
        """A Hydra that reads these folders within the limits of `yaml_limits`."""
        path = create_config_search_path(f"file://{self.conf}")
        if self.extra is not None:
            path.prepend("command-line", f"file://{self.extra}", SearchPathQuery(provider="schema"))
        for package, folder in plugins().items():
            path.prepend(
                f"plugin {package}", f"file://{folder}", SearchPathQuery(provider="schema")
            )
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2(task_name="train", config_search_path=path)
        use_own_sources(hydra.config_loader)
        register_resolvers()
        return hydra

    @property
    def folders(self) -> list[Path]:
        """Those of config files."""
        return [self.conf, *([] if self.extra is None else [self.extra]), *plugins().values()]

    def checked(self) -> DictConfig:
        """The valid config with its `hydra:` node; for a sweep, every job has been checked as well.

        Raises:
            ConfigError: the config, or that of any job, is invalid; at most ten lines.
            NotAllowedError: it holds a target or key that may not be built or set.
        """
        typed, issues = parse(self.overrides, self.multirun)
        config = master = None
        objectives = list[str]()
        if self.multirun and not issues:
            master = self._sweep_config(typed)
        for texts in jobs_to_check(typed, master, issues) if self.multirun else [list(typed)]:
            config = self._job(texts, issues)
            if self.multirun and config is not None and not issues:
                self.check_job(config)
                objectives.append(str(config.objective))
        if len(names := dict.fromkeys(objectives)) > 1:
            issues.append(
                ConfigIssue(
                    "objective", f"the jobs have {' and '.join(names)}; choose one: objective=..."
                )
            )
        if issues:
            raise ConfigError(format_issues(issues))
        if config is None:
            raise ConfigError("the sweep is empty: one of its ranges has no values")
        if not self.multirun:
            return config
        composed = [text for text in texts if not text.lstrip("+~").startswith("hydra")]
        if master is None or as_typed(config.hydra.overrides.task) != composed:
            # Valid only if forced: a key of an open mapping, `tags.for=thesis`. Hydra composes each job again.
            self.overrides = list(forced(self.hydra, typed)[0].values())
            master = self._compose(RunMode.MULTIRUN)
        guard_hydra_node(master.hydra)
        master.objective = objectives[0]  # also where an option that is swept sets it
        return master

    def checked_values(self, *, resolve: bool) -> dict[str, Any]:
        """The valid config of one job as plain values, without its `hydra:` node."""
        values = OmegaConf.to_container(without_hydra(self.checked()), resolve=resolve)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    def defaults(self) -> tuple[dict[str, object], dict[str, str]]:
        """(values as far as they can be resolved, option of each group) of the overrides; nothing is checked.

        Raises ConfigError if they cannot be composed.
        """
        try:
            config = self._compose(RunMode.RUN)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(one_line(str(error).partition("\n")[0])) from None
        values, _ = resolve(without_hydra(config))
        return values, {
            str(group): str(option)
            for group, option in config.hydra.runtime.choices.items()
            if option
        }

    def guard(self) -> None:
        """Refuses a `hydra:` node that would act before the config is checked."""
        guard_hydra_node(self._compose(RunMode.RUN).hydra)

    def _compose(self, mode: RunMode, overrides: list[str] | None = None) -> DictConfig:
        try:
            return self.hydra.compose_config(
                self.name, list(self.overrides if overrides is None else overrides), mode
            )
        except Exception as error:
            if hides_interrupt(error):
                raise KeyboardInterrupt from None
            raise

    def _sweep_config(self, typed: dict[str, Override]) -> DictConfig | None:
        """The config of the whole sweep; None if it cannot be composed, which the check of its jobs explains."""
        for overrides in (list(typed), list(forced(self.hydra, typed)[0].values())):
            with suppress(Exception):
                return self._compose(RunMode.MULTIRUN, overrides)
        return None

    def _job(self, texts: list[str], issues: list[ConfigIssue]) -> DictConfig | None:
        """The config of a job; its errors are added to `issues`, labelled with their origin."""
        config, found = self._attempt(texts)
        options = self._resumed_options(texts) if found else []
        if options:
            resumed, found_now = self._attempt([*options, *texts])
            if resumed is not None:
                config, found = resumed, found_now
        if found and (sizes := self._without_sizes([*options, *texts])):
            sizeless, found_now = self._attempt([*sizes, *options, *texts])
            if sizeless is not None and len(found_now) < len(found):
                config, found, options = sizeless, found_now, [*sizes, *options]
        if config is not None and options:
            config.hydra.overrides.task = [
                text for text in config.hydra.overrides.task if text not in options
            ]
        issues += found
        return config

    def _attempt(self, texts: list[str]) -> tuple[DictConfig | None, list[ConfigIssue]]:
        """The config of a job, None if it cannot be composed, and its errors."""
        issues: list[ConfigIssue] = []
        composed = texts
        try:
            config: DictConfig | None = self._compose(RunMode.RUN, texts)
        except Exception:  # Hydra stops at the first error; this finds all of them
            config, composed, issues = compose_valid(self.hydra, self.name, texts)
        if config is not None:
            label = partial(locate, self.hydra, self.name, tuple(texts), tuple(composed))
            guard_hydra_node(config.hydra, label)
            sweep = sweep_issues(config.hydra, label) if self.multirun else []
            issues = [
                *issues,
                *sweep,
                *_unnamed_folders(config, label),
                *_job_issues(config, label),
            ]
        return config, issues

    def _resumed_options(self, texts: list[str]) -> list[str]:
        """The options of the run that is resumed, for groups that typed keys are in and that are not typed.

        `model.adapter.rank=4` is of `model/adapter=lora`, which need not be typed again.
        """
        names = [override_name(text) for text in texts]
        return [
            f"{group}={option}"
            for group, option in ({} if self.multirun else self.choices()).items()
            if group not in names
            and any(name.startswith(f"{group.replace('/', '.')}.") for name in names)
        ]

    def _without_sizes(self, texts: list[str]) -> list[str]:
        """No preset of sizes, for a model that is typed or resumed and may lack the keys of the default one."""
        names = [override_name(text) for text in texts]
        return (
            NO_SIZES if not self.multirun and "model" in names and "model/size" not in names else []
        )


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
            folder = OmegaConf.select(config, path)
            if folder in (None, "", "-", "."):
                issues.append(ConfigIssue(label(path), "expected the path of a folder"))
            elif (expanded := os.path.expanduser(str(folder))) != str(folder):
                issues.append(
                    ConfigIssue(label(path), f"~ is not expanded here; expected {expanded}")
                )
        except (OmegaConfBaseException, UserError) as error:
            issues.append(ConfigIssue(label(path), one_line(str(error).partition("\n")[0])))
    return issues


def _job_issues(config: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """The errors in the config of a job, with HydraConfig set so that `${hydra:...}` resolves."""
    job = copy.deepcopy(config)
    with read_write(job), open_dict(job):  # placeholders for what Hydra sets only when the job runs
        for key, value in {
            "runtime.output_dir": "(the run folder)",
            "job.num": 0,
            "job.id": "0",
        }.items():
            if OmegaConf.select(job.hydra, key) is None:
                OmegaConf.update(job.hydra, key, value)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    with read_write(job), open_dict(job):
        del job["hydra"]  # a copy already
    try:
        return config_issues(job, label)
    finally:
        HydraConfig.instance().cfg = before
