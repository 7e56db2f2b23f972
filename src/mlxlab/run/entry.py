"""Runs one experiment, or rounds of it, in its folder: what the command `train` and the Python API share."""

import gc
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, read_write

from mlxlab.checkpoint.names import (
    KEYWORD,
    RESUME_KEYWORDS,
    can_resume,
    check_rounds,
    find_resumed_run,
    resumes_rounds,
    split_path,
)
from mlxlab.config.admission import TRUST, admitted_choices, is_trusted
from mlxlab.config.hydra.job import as_typed, check_folder, job_config, typed_values
from mlxlab.config.paths import conf_dir, plugins
from mlxlab.errors import (
    CheckpointUnavailableError,
    ConfigError,
    DataError,
    InputNotFoundError,
    RunInterrupted,
    RunPruned,
    UserError,
)
from mlxlab.files.untrusted import refuse_links
from mlxlab.files.yaml_file import read_yaml
from mlxlab.record.run_file import FILE, of_sweep, read_run
from mlxlab.schema.dotted_keys import override_name, value_at
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.terminal.program import display_path, text_value
from mlxlab.training.distributed.launch_env import check_parallel, rank

if TYPE_CHECKING:
    from mlxlab.past_runs.changes import CommandLine
    from mlxlab.training.callback import Callback

_TASK = {"experiment", "model", "data"}  # keys and groups that say what to train


def run_composed(config: DictConfig, callbacks: "Sequence[Callback]" = ()) -> Path:
    """Runs a checked config in its own folder, which is returned.

    Args:
        callbacks: besides those of the config.

    Raises:
        UserError: as `prepare_run` and `run_prepared`.
    """
    from mlxlab.config.hydra.compose import without_hydra
    from mlxlab.files.atomic import make_folder

    with job_config(config):
        prepare_run(config)
        folder = Path(config.hydra.run.dir).absolute()
    make_folder(folder)
    with job_config(config, str(folder)):
        run_prepared(without_hydra(config), folder, callbacks=callbacks)
    return folder


def prepare_run(config: DictConfig) -> None:
    """Decides in which folder a checked config runs, and refuses one that it cannot run in; nothing is written.

    Raises:
        UserError: the user can correct it.
    """
    from mlxlab.checkpoint.listing import refuse_exported

    check_parallel(config.trainer.parallel)
    check_folder(config, "hydra.run.dir")
    check_named_run(config.resume)
    _set_run_dir(config)
    run_dir = Path(str(config.hydra.run.dir))
    for folder in filter(None, (run_dir, find_resumed_run(config.resume))):
        refuse_links(folder)
    refuse_exported(run_dir, resumes=config.resume is not None)
    if config.resume is not None:
        check_rounds(run_dir)


def check_named_run(resume: str | None) -> None:
    """Raises InputNotFoundError for a run to resume whose folder does not exist."""

    if resume in (None, "auto") or "://" in resume or KEYWORD.fullmatch(resume) or rank() > 0:
        return
    try:
        split_path(resume, RESUME_KEYWORDS)
    except InputNotFoundError as error:
        raise InputNotFoundError(f"resume={error}") from None


def check_run_to_continue(overrides: Sequence[str]) -> None:
    """Refuses a command with `resume=auto` where no run can be continued, unless it says what to train.

    It would train the default experiment, in a misspelt folder or in that of a run that ended before a checkpoint.

    Raises:
        InputNotFoundError: the folder holds no run.
        CheckpointUnavailableError: the run has no checkpoint.
    """

    values = typed_values(overrides)
    if values.get("resume") != "auto" or "hydra.run.dir" not in values or rank() > 0:
        return
    folder = Path(values["hydra.run.dir"])
    says_task = any(re.split("[./]", override_name(text))[0] in _TASK for text in overrides)
    if says_task or can_resume(folder):
        return
    if os.path.lexists(folder / FILE):
        raise CheckpointUnavailableError(
            f"{folder}: its run ended before the first checkpoint; repeat the command that began it"
        )
    if folder.is_dir():
        raise InputNotFoundError(f"{folder}: a folder without a run, expected one to continue")
    raise InputNotFoundError(f"hydra.run.dir={no_such_folder(folder, 'a run to continue')}")


def check_split_of(data: dict[str, Any]) -> None:
    """Raises ConfigError for keys of the split of a data node that do not go together."""
    from mlxlab.data.labelled.options import check_split

    if "folds" in data:
        absent: dict[str, Any] = dict.fromkeys(("valid_source", "time_column", "group_column"))
        check_split({**absent, **data})  # type: ignore[typeddict-item]  # Its values were checked.


def check_named_files(data: dict[str, Any]) -> None:
    """Raises InputNotFoundError for a source of a data node that is no file, folder, glob or hub data set."""
    from mlxlab.data.sources.files import find_files
    from mlxlab.data.sources.open import is_local

    sources = {key: data.get(key) for key in ("source", "valid_source", "test_source")}
    mixture = data.get("mixture")
    if isinstance(mixture, dict):  # It replaces `source`.
        sources["source"] = None
        sources |= {f"mixture.{source}": source for source in mixture}
    for key, source in sources.items():
        if not isinstance(source, str) or source.startswith(("sklearn:", "synthetic")):
            continue
        try:
            with suppress(DataError):  # The data set may read one of several formats.
                if is_local(source) and not os.path.lexists(os.path.expanduser(source)):
                    find_files(source)
        except InputNotFoundError as error:
            raise InputNotFoundError(f"data.{key.partition('.')[0]}: {error}") from None


def run_prepared(
    config: DictConfig,
    folder: Path,
    *,
    owns_process: bool = False,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """`run_experiment`; the folder of a run that was refused before training is removed.

    Args:
        owns_process: the process ends after it.
        callbacks: besides those of the config.
    """
    from mlxlab.run.context import remove_unused

    try:
        return run_experiment(config, folder, owns_process=owns_process, callbacks=callbacks)
    except RunInterrupted as stop:
        stop.add_note(f"run folder: {display_path(folder)}")
        raise
    except UserError:
        remove_unused(folder)
        raise


def run_experiment(
    cfg: DictConfig,
    run_dir: Path,
    *,
    owns_process: bool = False,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """Runs one experiment, or rounds of it, in its folder; returns the best value of `cfg.objective`.

    Raises:
        UserError: anything the user can correct, with its exit code; RunInterrupted when a signal ended the run.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    del config[TRUST]  # It is never stored.
    return run_config(config, run_dir, owns_process=owns_process, callbacks=callbacks)


def run_config(
    config: dict[str, Any],
    run_dir: Path,
    *,
    owns_process: bool = False,
    command: "CommandLine | None" = None,
    callbacks: "Sequence[Callback]" = (),
) -> float:
    """`run_experiment` of a resolved config. A run that its sweep paused or pruned has a value as well.

    Args:
        command: what is recorded as typed; None is that of the running job.
    """
    from mlxlab.distillation.options import read_options
    from mlxlab.run.context import announce, open_run
    from mlxlab.training.stop_rule import stop_rule

    is_multi_round = read_options(config["trainer"].get("distillation")).is_multi_round
    if is_multi_round and stop_rule() is not None:
        raise ConfigError("hydra.sweeper.pruner: expected none for distillation in several rounds")
    starting = announce(config, run_dir)
    try:
        with open_run(run_dir, config, owns_process=owns_process) as context:
            context = replace(context, command=command or context.command, callbacks=callbacks)
            with starting:
                from mlxlab.run.train import train
            if owns_process:
                gc.freeze()  # what has been imported and composed is needed to the end
                gc.enable()  # `train` has disabled it
            if is_multi_round or resumes_rounds(config["resume"], context.shared_dir):
                from mlxlab.run.rounds import train_rounds

                return train_rounds(config, context)
            return train(config, context)
    except RunPruned as stop:
        return stop.objective


def resumed_choices(overrides: list[str]) -> dict[str, str]:
    """The options (config group -> option) of the run that overrides resume; empty if there is none."""

    values = typed_values(overrides)
    resume = values.get("resume")
    if resume is None:
        return {}

    typed_dir = values.get("hydra.run.dir", "missing")
    folder = fetch_resumed_run(overrides) or find_resumed_run(resume) or Path(typed_dir)
    with suppress(InputNotFoundError, DataError):
        choices = read_run(folder).command.choices
        if is_trusted(overrides):
            return choices
        return admitted_choices(choices)
    return {}


def complete_overrides(overrides: list[str], config_dir: Path | None = None) -> list[str]:
    """Overrides that name all that `rerun=<run>` takes over from a past run; raises as `expand_rerun`.

    Args:
        config_dir: a folder of config files in addition to conf/.

    Raises:
        InputNotFoundError: `resume` names the folder of a sweep.
    """

    values = typed_values(overrides)
    resume = values.get("resume")
    if resume:
        advice = of_sweep(Path(os.path.expanduser(resume)))
        if advice:
            raise InputNotFoundError(f"resume={resume}: expected a run folder{advice}")
    if "rerun" not in values:
        return overrides
    from mlxlab.config.check import resolve
    from mlxlab.config.hydra.compose import compose
    from mlxlab.past_runs.rerun import expand_rerun

    folders = [conf_dir(), *plugins().values()]
    if config_dir:
        folders.insert(1, config_dir)
    return expand_rerun(overrides, folders, lambda texts: resolve(compose(texts, config_dir))[0])


def resumed_options(overrides: list[str]) -> list[str]:
    """The options of the run that is resumed, for groups that typed keys are in and that are not typed.

    `model.adapter.rank=4` is of `model/adapter=lora`, which need not be typed again. Options `none` have no keys.
    """
    names = [override_name(text) for text in overrides]
    return [
        f"{group}={option}"
        for group, option in resumed_choices(overrides).items()
        if group not in names
        and option != "none"
        and any(name.startswith(f"{group.replace('/', '.')}.") for name in names)
    ]


def fetch_resumed_run(overrides: list[str]) -> Path | None:
    """The folder of a run that overrides resume from an object store, fetched if need be; None if they do not."""
    values = typed_values(overrides)
    if "://" not in values.get("resume", ""):
        return None
    from mlxlab.run.storage import open_address

    address = values["resume"]
    options = {key: values.get(f"cloud.{key}") for key in ("endpoint", "region", "account")}
    return open_address(address, options).fetch(address, values.get("hydra.run.dir"))


def with_fetched_run(overrides: list[str]) -> list[str]:
    """Overrides that name the folder of a run, fetched if need be, in place of its address in an object store."""
    folder = fetch_resumed_run(overrides)
    if folder is None:
        return overrides
    return [
        *(each for each in overrides if override_name(each) != "resume"),
        f"resume={text_value(str(folder))}",
    ]


def preview(config: DictConfig) -> str:
    """Takes one step of a prepared config: what it needs, and the growth schedule as a table; nothing is written.

    Raises:
        ConfigError: an operation of the schedule cannot work.
        UserError: as `run_experiment`, where data, model or checkpoint are at fault.
    """
    import tempfile

    from mlxlab import backend
    from mlxlab.config.hydra.compose import without_hydra

    with tempfile.TemporaryDirectory() as folder:
        requested: Any = OmegaConf.to_container(without_hydra(config), resolve=True)
        backend.prepare()
        from mlxlab.run.train import preview_run

        return preview_run(requested, Path(config.hydra.run.dir), Path(folder))


def _set_run_dir(config: DictConfig) -> None:
    """A run that is resumed by its path continues in its own folder, unless another one is set or it is a rerun."""
    import atexit
    import shutil
    import tempfile

    hydra_args = as_typed(config.hydra.overrides.hydra)
    typed = [*as_typed(config.hydra.overrides.task), *hydra_args]
    fetched = fetch_resumed_run([*typed, f"resume={config.resume}"])
    if fetched:
        config.resume = str(fetched)
    folder = find_resumed_run(config.resume)
    current = value_at(OmegaConf.to_container(config.hydra.run), "dir")
    default = value_at(read_yaml(conf_dir() / "train.yaml").values, "hydra.run.dir")
    is_typed = "hydra.run.dir" in map(override_name, hydra_args)
    # A rerun is a run of its own, also where it begins with a checkpoint.
    is_elsewhere = is_typed or config.rerun is not None or current != default
    if rank() > 0:  # rank 0 writes the run folder; what Hydra writes for this rank is discarded
        folder = Path(tempfile.mkdtemp(prefix="mlxlab-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    elif is_elsewhere or folder is None:
        return
    with read_write(config.hydra):
        config.hydra.run.dir = str(folder)
