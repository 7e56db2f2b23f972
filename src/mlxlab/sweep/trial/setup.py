"""What the arguments of `trial` ask: the configs of both arms, the folder, and the sweep that trains them."""

import logging
import re
from pathlib import Path
from typing import Literal, NamedTuple

from omegaconf import DictConfig

from mlxlab.analysis.comparison_runs import output_folder
from mlxlab.config.admission import TRUST
from mlxlab.config.check import resolve
from mlxlab.config.hydra.compose import compose
from mlxlab.config.hydra.job import as_typed, typed_values
from mlxlab.config.paths import conf_dir, plugins
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import make_folder
from mlxlab.files.untrusted import refuse_links
from mlxlab.past_runs.lookup import find_run_folder
from mlxlab.past_runs.rerun import merge_recorded, override_text, read_past_run
from mlxlab.record import provenance
from mlxlab.run.entry import complete_overrides
from mlxlab.schema.dotted_keys import override_name
from mlxlab.sweep.trial.record import (
    FILE,
    Arm,
    Question,
    TrialRecord,
    check_question,
    config_digest,
    write_record,
)
from mlxlab.terminal.program import text_value
from mlxlab.terminal.wording import one_line

FOR_BOTH = ("tracking", "cloud", "tags", TRUST, "hydra.launcher")
OWN = ("seed", "objective", "resume", "resume_policy", "rerun", "name", "hydra")
LENGTHS = ("trainer.max_steps", "trainer.epochs", "trainer.max_tokens")
logger = logging.getLogger(__name__)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Budget(NamedTuple):
    """`steps` of each run; `seconds` of the whole trial, after which no pair begins."""

    steps: int | None = None
    seconds: float | None = None

    @property
    def overrides(self) -> list[str]:
        if self.steps is None:
            return []
        return [f"{LENGTHS[0]}={self.steps}", *(f"{key}=null" for key in LENGTHS[1:])]


class Texts(NamedTuple):
    """The arguments that are no options: the change, what is for both arms, and those of the launcher."""

    change: list[str]
    both: list[str]
    launcher: list[str]


class Options(NamedTuple):
    """The options of the command, with their meaning there; `looks` are the numbers of pairs at the first and last."""

    limits: Budget
    looks: list[int]
    metric: str | None = None
    evaluation: Literal["best", "last"] = "best"
    min_gain: float | None = None
    folder: Path | None = None
    jobs: int = 1


def read_budget(text: str | None) -> Budget:
    """The limits in `200steps`, `30s`, or both with a comma; raises ConfigError for any other text."""
    limits = Budget()
    if text is None:
        return limits
    for part in text.split(","):
        steps = re.fullmatch(r"(\d{1,12})steps?", part)
        seconds = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smh])", part)
        if steps and int(steps[1]) and limits.steps is None:
            limits = limits._replace(steps=int(steps[1]))
        elif seconds and limits.seconds is None:
            limits = limits._replace(seconds=float(seconds[1]) * _SECONDS[seconds[2]])
        else:
            raise ConfigError(
                f"budget={text}: expected steps of a run, time of the trial, or both: 200steps,30m"
            )
    return limits


def split_args(args: list[str], limits: Budget) -> Texts:
    """Raises ConfigError for arguments that a trial sets itself, and if there is no change."""
    texts = Texts([], [], [])
    for arg in args:
        key = override_name(arg).replace("/", ".")
        if arg.startswith("-"):
            raise ConfigError(f"{arg}: unknown flag")
        if _is_in(key, ("hydra.launcher",)):
            texts.launcher.append(arg)
        elif _is_in(key, FOR_BOTH):
            texts.both.append(arg)
        elif _is_in(key, OWN):
            raise ConfigError(
                f"{arg}: trial sets {key} itself; its options are baseline, metric, seeds and folder"
            )
        elif limits.steps is not None and key in LENGTHS:
            raise ConfigError(
                f"{arg}: budget={limits.steps}steps sets the length of each run; leave out one of them"
            )
        else:
            texts.change.append(arg)
    if not texts.change:
        raise ConfigError("trial: expected a change, such as trainer.learning_rate=3e-4")
    return texts


def prepare_trial(
    baseline: str, texts: Texts, options: Options, command: str
) -> tuple[Path, list[str]]:
    """Checks the configs of both arms, and writes what the trial asks into its folder, unless it is there; returns that, and the
    overrides of the sweep that trains them.

    Args:
        command: the whole command line, to be shown where the trial is to be continued.

    Raises:
        ConfigError: a config is not valid, both are equal, or the folder holds another trial.
        InputNotFoundError, DataError, NotAllowedError, ServiceUnavailableError: the past run cannot be read.
        CannotCreateError: the folder cannot be made.
    """
    run = find_run_folder(baseline, typed_values(texts.both).get("tracking.uri"))
    past = read_past_run(run)
    if past.forked_from is not None:
        raise ConfigError(
            f"baseline={baseline}: it started from {past.forked_from}; expected a run trained from scratch"
        )
    configs = _compose_arms(run, texts, options)
    if len({config_digest(resolve(config)[0]) for config in configs.values()}) == 1:
        raise ConfigError(f"{' '.join(texts.change)}: changes nothing in the config of {run}")
    overrides = {}
    for arm, config in configs.items():
        typed = as_typed(config.hydra.overrides.task)
        overrides[arm] = [text for text in typed if override_name(text) != "seed"]
    code = provenance.code(provenance.git())
    question = Question(
        baseline=str(run),
        change=texts.change,
        overrides=overrides,
        metric=options.metric or str(configs["baseline"].objective),
        evaluation=options.evaluation,
        min_gain=options.min_gain,
        looks=options.looks,
        first_seed=int(past.config["seed"]),
        code={"commit": code["commit"], "digest": code["digest"]},
    )
    folder = _make_folder(options.folder, question, command)
    return folder, _sweep_overrides(overrides["baseline"], texts.launcher, options, folder)


def _compose_arms(run: Path, texts: Texts, options: Options) -> dict[Arm, DictConfig]:
    """The checked config of either arm: a rerun of the past run, without and with the change."""
    trusts = [text for text in texts.both if override_name(text) == TRUST]
    both = [text for text in texts.both if text not in trusts]
    shared = [f"rerun={text_value(str(run))}", *both, *options.limits.overrides]
    if options.metric is not None and options.evaluation == "best":
        shared.append(f"objective={options.metric}")
    baseline = complete_overrides([*shared, *trusts])
    folders = [conf_dir(), *plugins().values()]
    merged = merge_recorded(baseline[: -len(shared)], texts.change, folders)
    if merged.dropped:
        logger.info(
            f"dropped from the changed runs, whose change replaces the option: {one_line(' '.join(merged.dropped))}"
        )
    changed = [*merged.overrides, *shared, *texts.change]
    return {"baseline": compose(baseline), "changed": compose(changed)}


def _sweep_overrides(
    overrides: list[str], launcher: list[str], options: Options, folder: Path
) -> list[str]:
    """The overrides of the sweep that trains both arms."""
    names = [override_name(text).replace("/", ".") for text in launcher]
    own = ["hydra/sweeper=paired", override_text("hydra.sweeper.seconds", options.limits.seconds)]
    own += [
        override_text("hydra.sweep.dir", str(folder)),
        "hydra.callbacks.parent_run.report=false",
    ]
    if options.jobs > 1 and "hydra.launcher.n_jobs" not in names:
        own.append(f"hydra.launcher.n_jobs={options.jobs}")
    return [*overrides, *launcher, *own]


def _make_folder(folder: Path | None, question: Question, command: str) -> Path:
    """The folder with the question of the trial in it."""
    if folder is None:
        parent = Path("outputs/trials")
        folder = output_folder(parent, " ".join(question.change), {**vars(question), "code": None})
    folder = folder.absolute()
    refuse_links(folder)
    check_question(folder, question)
    make_folder(folder)
    if not (folder / FILE).exists():
        write_record(folder, TrialRecord(question, command))
    return folder


def _is_in(key: str, nodes: tuple[str, ...]) -> bool:
    return f"{key}.".startswith(tuple(f"{node}." for node in nodes))
