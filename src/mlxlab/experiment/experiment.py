"""Runs one experiment, or rounds of it, in its folder: what the command `train` and the Python API share."""

import gc
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.config.admission import TRUST, admitted_choices, is_trusted
from mlxlab.config.issues import value_at
from mlxlab.config.resume_overrides import override_name
from mlxlab.distributed.launch_env import check_parallel, rank
from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    RunInterrupted,
    RunPruned,
    UserError,
)
from mlxlab.program import display_path, text_value

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlxlab.config.hydra.compose import Composer


def run_composed(
    composer: "Composer", config: "DictConfig", *, owns_process: bool = False
) -> tuple[Path, float]:
    """Runs a checked config in its own folder; returns the folder and the best value of `cfg.objective`.

    Args:
        owns_process: the process ends after it.

    Raises:
        UserError: as `run_experiment`; the folder of a run that was refused before training is removed.
    """
    from mlxlab.checkpoint.exported import refuse_exported
    from mlxlab.checkpoint.names import check_rounds_file, find_resumed_run
    from mlxlab.config.hydra.job import run_as_job
    from mlxlab.experiment.run import remove_unused
    from mlxlab.files.untrusted import refuse_links

    check_parallel(config.trainer.parallel)
    _set_run_dir(composer, config)
    run_dir = Path(str(config.hydra.run.dir))
    for folder in filter(None, (run_dir, find_resumed_run(config.resume))):
        refuse_links(folder)
    refuse_exported(run_dir, resumes=config.resume is not None)  # before anything is written
    if config.resume is not None:
        check_rounds_file(run_dir)
    folder, result = run_as_job(
        composer, config, partial(run_experiment, owns_process=owns_process)
    )
    if not isinstance(result, Exception):
        return folder, result
    if isinstance(result, RunInterrupted):
        result.add_note(f"run folder: {display_path(folder)}")
    elif isinstance(result, UserError):
        remove_unused(folder)
    raise result


def run_experiment(cfg: "DictConfig", run_dir: Path, *, owns_process: bool = False) -> float:
    """Runs one experiment, or rounds of it, in its folder; returns the best value of `cfg.objective`.

    Raises:
        UserError: anything the user can correct, with its exit code; RunInterrupted when a signal ended the run.
    """
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(cfg, resolve=True)
    del config[TRUST]  # It is never stored.
    return run_config(config, run_dir, owns_process=owns_process)


def run_config(config: dict[str, Any], run_dir: Path, *, owns_process: bool = False) -> float:
    """`run_experiment` of a resolved config. A run that its sweep paused or pruned has a value as well."""
    from mlxlab.checkpoint.names import resumes_rounds
    from mlxlab.distillation.options import read_options
    from mlxlab.experiment.run import announce, open_run
    from mlxlab.training.stop_rule import stop_rule

    trainer = config["trainer"]
    is_multi_round = read_options(trainer.get("distillation")).is_multi_round
    if is_multi_round and stop_rule() is not None:
        raise ConfigError("hydra.sweeper.pruner: expected none for distillation in several rounds")
    processes, starting = (
        (trainer["parallel"], trainer["worker_timeout"]),
        announce(config, run_dir),
    )
    try:
        with open_run(run_dir, config["signals"], *processes, owns_process=owns_process) as context:
            with starting:
                from mlxlab.experiment.train import train
            if owns_process:
                gc.freeze()  # what has been imported and composed is needed to the end
                gc.enable()  # `train` has disabled it
            if is_multi_round or resumes_rounds(config["resume"], context.shared_dir):
                from mlxlab.experiment.rounds import DistillationRounds

                return DistillationRounds(config, context).run()
            return train(config, context)
    except RunPruned as stop:
        return stop.objective


def resumed_choices(overrides: list[str]) -> dict[str, str]:
    """The options (config group -> option) of the run that overrides resume; empty if there is none."""
    from mlxlab.checkpoint.names import find_resumed_run
    from mlxlab.config.hydra.overrides import typed_values
    from mlxlab.experiment.manifest import read_manifest

    values = typed_values(overrides)
    if (resume := values.get("resume")) is None:
        return {}
    typed_dir = values.get("hydra.run.dir", "missing")
    folder = fetch_resumed_run(overrides) or find_resumed_run(resume) or Path(typed_dir)
    with suppress(InputNotFoundError, DataError):
        choices = read_manifest(folder).get("inputs", {}).get("choices", {})
        return choices if is_trusted(overrides) else admitted_choices(choices)
    return {}


def with_past_run(composer: "Composer") -> "Composer":
    """A composer whose overrides name all that `rerun=<run>` takes over from a past run; raises as `expand_rerun`.

    Raises InputNotFoundError for the folder of a sweep.
    """
    from mlxlab.config.hydra.overrides import typed_values
    from mlxlab.experiment.sweep_start import of_sweep

    values = typed_values(composer.overrides)
    if (resume := values.get("resume")) and (advice := of_sweep(Path(os.path.expanduser(resume)))):
        raise InputNotFoundError(f"resume={resume}: expected a run folder{advice}")
    if "rerun" not in values:
        return composer
    from dataclasses import replace

    from mlxlab.config.check import resolve
    from mlxlab.config.hydra.compose import without_hydra
    from mlxlab.experiment.past_run.rerun import expand_rerun

    def compose(overrides: list[str]) -> dict[str, Any]:
        config = replace(composer, overrides=overrides, multirun=False, choices=dict).checked()
        return resolve(without_hydra(config))[0]

    overrides = expand_rerun(composer.overrides, composer.folders, compose)
    return replace(composer, overrides=overrides, choices=partial(resumed_choices, overrides))


def fetch_resumed_run(overrides: list[str]) -> Path | None:
    """The folder of a run that overrides resume from an object store, fetched if need be; None if they do not."""
    if not any("://" in text for text in overrides):
        return None
    from mlxlab.config.hydra.overrides import typed_values

    values = typed_values(overrides)
    if "://" not in values.get("resume", ""):
        return None
    from mlxlab.experiment.storage import open_address

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


def preview_growth(composer: "Composer", config: "DictConfig") -> str:
    """The growth schedule of a checked config as a table, from what the run would start from; nothing is written.

    Raises:
        ConfigError: there is no schedule, or one of its operations cannot work.
        UserError: as `run_experiment`, where data, model or checkpoint are at fault.
    """
    import tempfile

    from omegaconf import OmegaConf

    from mlxlab import backend
    from mlxlab.config.hydra.compose import without_hydra
    from mlxlab.config.hydra.job import job_config

    _set_run_dir(composer, config)
    with job_config(config), tempfile.TemporaryDirectory() as folder:
        requested: Any = OmegaConf.to_container(without_hydra(config), resolve=True)
        backend.prepare()
        from mlxlab.experiment.train import preview_schedule

        return preview_schedule(requested, Path(config.hydra.run.dir), Path(folder))


def _set_run_dir(composer: "Composer", config: "DictConfig") -> None:
    """A run that is resumed by its path continues in its own folder, unless another one is set or it is a rerun."""
    import atexit
    import shutil
    import tempfile

    from omegaconf import OmegaConf

    from mlxlab.checkpoint.names import find_resumed_run
    from mlxlab.config.hydra.overrides import as_typed
    from mlxlab.config.hydra.yaml_limits import read_yaml

    hydra_args = as_typed(config.hydra.overrides.hydra)
    typed = [*as_typed(config.hydra.overrides.task), *hydra_args]
    if fetched := fetch_resumed_run([*typed, f"resume={config.get('resume')}"]):
        config.resume = str(fetched)
    own, file = find_resumed_run(config.get("resume")), composer.conf / f"{composer.name}.yaml"
    current = value_at(OmegaConf.to_container(config.hydra.run), "dir")
    default = value_at(read_yaml(file).values, "hydra.run.dir") if file.is_file() else None
    is_typed = any(arg.lstrip("+").startswith("hydra.run.dir=") for arg in hydra_args)
    is_rerun = (
        config.get("rerun") is not None
    )  # a run of its own, also where it begins with a checkpoint
    if own and not (is_typed or is_rerun) and current == (default or current):
        config.hydra.run.dir = str(own)
    if rank() > 0:  # rank 0 writes the run folder; what Hydra writes for this rank is discarded
        config.hydra.run.dir = tempfile.mkdtemp(prefix="mlxlab-")
        atexit.register(shutil.rmtree, config.hydra.run.dir, ignore_errors=True)
