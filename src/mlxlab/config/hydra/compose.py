"""Composition: from config files and overrides to one checked config, or to lines that say what is wrong."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.check import config_issues, refuse_disallowed
from mlxlab.config.findings import ConfigIssue, LocateKey, format_issues, one_line
from mlxlab.config.hydra import composition_errors
from mlxlab.config.hydra.config_source import install_config_source
from mlxlab.config.hydra.node_policy import disallowed_hydra_keys
from mlxlab.config.hydra.overrides import ParsedOverride, parse
from mlxlab.config.hydra.resolve import register_resolvers
from mlxlab.config.hydra.value_origins import ValueOrigins
from mlxlab.errors import ConfigError, NotAllowedError, UserError

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


@dataclass
class Composer:
    """One command line.

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
        """A Hydra that reads these folders through the guard."""
        install_config_source()
        path = create_config_search_path(f"file://{self.conf}")
        if self.extra is not None:
            path.prepend("command-line", f"file://{self.extra}", SearchPathQuery(provider="schema"))
        GlobalHydra.instance().clear()
        hydra = Hydra.create_main_hydra2(task_name="train", config_search_path=path)
        register_resolvers()
        return hydra

    def checked(self, hydra: Hydra) -> DictConfig:
        """The config with its `hydra:` node, sound in every key; of a sweep every job has been checked as well.

        Raises:
            ConfigError: at most ten lines.
            NotAllowedError: something that may not be built or set.
        """
        typed, findings = parse(self.overrides, self.multirun)
        master = None if findings or not self.multirun else self._composed(hydra, self.overrides, RunMode.MULTIRUN)
        found: list[ConfigIssue] = findings
        config: DictConfig | None = None
        for texts in self._jobs(typed, master):
            config = self._sound(hydra, texts, found)
        if config is None and not found:
            raise ConfigError("the sweep is empty: one of its ranges has no values")
        if found:
            raise ConfigError(format_issues(found))
        if self.multirun and (master is None or config is None or _is_forced(config, texts)):
            # Sound, but only if forced: a key of an open mapping, `tags.for=thesis`. Hydra composes each job anew.
            self.overrides = composition_errors.forced(hydra, typed)[0]
            master = hydra.compose_config(self.name, list(self.overrides), RunMode.MULTIRUN)
        result = master if self.multirun else config
        assert result is not None
        guard_hydra_node(result)
        return result

    def guard(self, hydra: Hydra) -> None:
        """Refuses what would act or show something before a config is checked."""
        guard_hydra_node(hydra.compose_config(self.name, list(self.overrides), RunMode.RUN))

    def _jobs(self, typed: list[ParsedOverride], master: DictConfig | None) -> list[list[str]]:
        """The overrides of every job: of the one run, or of each point of the grid."""
        if not self.multirun:
            return [[one.text for one in typed]]
        grid = typed
        if master is not None and master.hydra.sweeper.get("_target_") == _BASIC_SWEEPER:
            params = [f"{key}={value}" for key, value in (master.hydra.sweeper.get("params") or {}).items()]
            grid = parse(params, multirun=True)[0] + typed
        else:  # another sweeper makes its own jobs
            grid = [one for one in typed if not one.parsed.is_sweep_override()]
        fixed = [one.text for one in grid if one.parsed.is_hydra_override()]
        try:
            [jobs] = BasicSweeper.split_arguments([one.parsed for one in grid if one.text not in fixed], None)
        except HydraException as error:
            raise ConfigError(f"-m: {one_line(str(error))}; give values, choice(...) or range(...)") from error
        return [fixed + job for job in jobs]

    def _composed(self, hydra: Hydra, texts: list[str], mode: RunMode) -> DictConfig | None:
        try:
            return hydra.compose_config(self.name, list(texts), mode)
        except (KeyboardInterrupt, NotAllowedError):
            raise
        except Exception:
            return None

    def _sound(self, hydra: Hydra, texts: list[str], found: list[ConfigIssue]) -> DictConfig | None:
        """One job's config; what is wrong with it is added to `found`, under the place it comes from."""
        composed = list(texts)
        config = self._composed(hydra, texts, RunMode.RUN)
        if config is None:
            config, composed = self._forced(hydra, parse(texts, multirun=True)[0], found)
        if config is not None:
            label = ValueOrigins(hydra.config_loader, self.name, texts, composed).label
            guard_hydra_node(config, label)
            found += _folders(config, label)
            found += [ConfigIssue(label(fault.path), fault.message) for fault in job_findings(config, label)]
        return config

    def _forced(
        self, hydra: Hydra, typed: list[ParsedOverride], found: list[ConfigIssue]
    ) -> tuple[DictConfig | None, list[str]]:
        """Composes what can be composed, setting aside one override after another."""
        texts, faults = composition_errors.forced(hydra, typed)
        found += faults
        while True:
            try:
                return hydra.compose_config(self.name, list(texts), RunMode.RUN), texts
            except NotAllowedError:
                raise
            except Exception as error:
                one = composition_errors.culprit([one for one in typed if _forced_text(one, texts)], error)
                found.append(composition_errors.finding(hydra, error, one))
                if one is None:
                    return None, texts
                texts.remove(_forced_text(one, texts) or "")


def _folders(config: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """Run folders without a name: Hydra would take the current folder, or one called None."""
    issues = []
    for path in ("hydra.run.dir", "hydra.sweep.dir"):
        try:
            unnamed = OmegaConf.select(config, path) in (None, "", "-", ".")
        except (OmegaConfBaseException, UserError) as error:
            issues.append(ConfigIssue(label(path), one_line(str(error).partition("\n")[0])))
            continue
        if unnamed:
            issues.append(ConfigIssue(label(path), "expected the path of a folder"))
    return issues


def _is_forced(config: DictConfig, texts: list[str]) -> bool:
    return list(config.hydra.overrides.task) != [text for text in texts if not text.lstrip("+~").startswith("hydra")]


def _forced_text(one: ParsedOverride, texts: list[str]) -> str | None:
    return next((text for text in texts if text.lstrip("+") == one.text.lstrip("+")), None)


def job_findings(config: DictConfig, label: LocateKey) -> list[ConfigIssue]:
    """What is wrong with a job, `hydra:` being at hand for `${hydra:...}`."""
    job = _prepared(config)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        task = without_hydra(job)
        refuse_disallowed(task, label)
        return config_issues(task)
    finally:
        HydraConfig.instance().cfg = before


def guard_hydra_node(config: DictConfig, label: LocateKey = str) -> None:
    """Refuses a `hydra:` node that would act by itself."""
    node: Any = OmegaConf.to_container(config.hydra, resolve=False)
    found = disallowed_hydra_keys(node)
    if found:
        raise NotAllowedError(format_issues(found, label))


def _prepared(config: DictConfig) -> DictConfig:
    """A copy in which what Hydra knows only when it runs has a value, so that everything can be resolved now."""
    job = copy.deepcopy(config)
    with read_write(job), open_dict(job):
        if OmegaConf.is_missing(job.hydra.runtime, "output_dir"):
            job.hydra.runtime.output_dir = "(the run folder)"
        for key, value in (("num", 0), ("id", "0")):
            if OmegaConf.is_missing(job.hydra.job, key):
                job.hydra.job[key] = value
    return job


def without_hydra(config: DictConfig) -> DictConfig:
    """The config that the experiment sees."""
    task = copy.copy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task
