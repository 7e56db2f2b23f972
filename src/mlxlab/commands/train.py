"""`train`: composes, checks, and runs one experiment or a sweep of them. Returns an exit code."""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxlab.config.faults import one_line
from mlxlab.config.places import conf_dir
from mlxlab.errors import CannotCreate, ConfigFault, Fault, Refused, Stopped

if TYPE_CHECKING:
    from argparse import Namespace

    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig

    from mlxlab.config.compose import Composer

_OUR_BUG = 70


def main(argv: list[str] | None = None) -> int:
    """Runs a command line (without the program's name); prints a fault in one line each; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if {"-h", "--help"} & set(argv):
            from mlxlab.commands.help import show_help

            print(show_help([word for word in argv if not word.startswith("-")]))
            return 0
        return _act(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `mlxlab train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return report(error)


def report(error: Exception) -> int:
    """Prints a fault as one line, our own bug as a traceback; the exit code."""
    if isinstance(error, Fault):
        print(error, file=sys.stderr)
        return error.exit_code
    traceback.print_exception(error)
    return _OUR_BUG


def _act(argv: list[str]) -> int:
    flags = _flags(argv)
    composer = _composer(flags)
    hydra = composer.open()
    if flags.cfg:
        return _show(hydra, composer, flags)
    if flags.info:
        hydra.show_info(flags.info, config_name=composer.name, overrides=composer.overrides)
        return 0
    if flags.shell_completion:
        hydra.shell_completion(config_name=composer.name, overrides=composer.overrides)
        return 0
    if flags.hydra_help:
        from hydra._internal.utils import get_args_parser

        hydra.hydra_help(config_name=composer.name, args_parser=get_args_parser(), args=flags)
        return 0
    config = composer.checked(hydra)
    return _sweep(hydra, composer, config) if composer.multirun else _run(hydra, config)


def _flags(argv: list[str]) -> "Namespace":
    """Hydra's own flags, in any order with the overrides."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise ConfigFault(f"{message}; see --help")

    parser.error = refuse  # type: ignore[method-assign,assignment]
    flags = parser.parse_intermixed_args(argv)
    if flags.experimental_rerun is not None:
        raise Refused(
            "--experimental-rerun: refused: it runs code from a pickle; resume=<run folder> goes on with a run"
        )
    if flags.resolve and not flags.cfg:
        raise ConfigFault("--resolve: only together with --cfg")
    if flags.cfg and (flags.multirun or flags.run):
        raise ConfigFault("--cfg: shows the config instead of running it; leave out --run and --multirun")
    return flags


def _composer(flags: "Namespace") -> "Composer":
    from mlxlab.config.compose import Composer

    multirun = flags.multirun or any(word.lstrip("+") == "hydra.mode=MULTIRUN" for word in flags.overrides)
    return Composer(
        conf=_folder(flags.config_path, "--config-path") or _folder(conf_dir(), "MLXLAB_CONF") or conf_dir(),
        overrides=flags.overrides,
        extra=_folder(flags.config_dir, "--config-dir"),
        name=flags.config_name or "train",
        multirun=multirun,
    )


def _folder(text: str | Path | None, flag: str) -> Path | None:
    if text is None:
        return None
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigFault(f"{flag} {one_line(str(text), 120)}: not a folder of config files")
    return folder


def _show(hydra: "Hydra", composer: "Composer", flags: "Namespace") -> int:
    """`--cfg job|hydra|all`, as Hydra prints it."""
    try:
        hydra.show_cfg(composer.name, composer.overrides, flags.cfg, flags.package, flags.resolve)
    except Fault:
        raise
    except Exception:
        composer.checked(hydra)  # says what is wrong, in our words
        raise
    return 0


def _run(hydra: "Hydra", config: "DictConfig") -> int:
    """One run in its own folder, under Hydra: HydraConfig, `.hydra/`, callbacks."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import JobStatus, run_job
    from hydra.types import HydraContext, RunMode

    config.hydra.mode = RunMode.RUN
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name="train")
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    try:
        job = run_job(job_task, config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    except OSError as error:
        raise _cannot_create(error) from error
    callbacks.on_run_end(config=config, config_name="train", job_return=job)
    if job.status != JobStatus.COMPLETED:
        return report(job._return_value)
    return 0


def _sweep(hydra: "Hydra", composer: "Composer", config: "DictConfig") -> int:
    """Every job of a sweep, in the order of the sweeper; one that fails does not end the others."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.overrides.hydra.append("hydra.mode=MULTIRUN")  # each job is composed anew, and must know
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=composer.name)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=job_task, config=config)
    _failures.clear()
    try:
        sweeper.sweep(arguments=list(config.hydra.overrides.task))
    except OSError as error:
        raise _cannot_create(error) from error
    except Exception as error:
        if not _failures:  # the sweep itself, not one of its jobs
            raise
        print(f"{len(_failures)} job(s) of the sweep failed: {', '.join(_failures)}", file=sys.stderr)
        return error.exit_code if isinstance(error, Fault) else _OUR_BUG
    finally:
        callbacks.on_multirun_end(config=config, config_name=composer.name)
    return 0


_failures: dict[str, int] = {}  # job number -> exit code, of the sweep that is running


def job_task(config: "DictConfig") -> Any:
    """One job, called by Hydra: checks the config it is given, runs it, returns the metric named by `objective`."""
    from hydra.core.hydra_config import HydraConfig

    from mlxlab.config import check

    hydra: Any = HydraConfig.get()
    try:
        check(config)
        from mlxlab.experiment import run

        return run(config, Path(hydra.runtime.output_dir))
    except Stopped as stopped:  # ends a sweep too: the signal was for the process
        raise SystemExit(report(stopped)) from stopped
    except Exception as error:
        if hydra.mode.name == "MULTIRUN":
            number = str(hydra.job.num)
            print(f"job {number} ({', '.join(hydra.overrides.task)}):", end=" ", file=sys.stderr)
            _failures[number] = report(error)
        raise


def _cannot_create(error: OSError) -> Fault:
    return CannotCreate(f"{error.filename}: {error.strerror or error}; the run folder cannot be made")
