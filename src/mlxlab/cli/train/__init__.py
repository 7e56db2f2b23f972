"""Trains one experiment, or a sweep of them: composes the config, checks it, and runs it."""

import gc
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab import terminal
from mlxlab.cli.app import run_subcommand
from mlxlab.cli.args import two_columns
from mlxlab.cli.train.named_files import check_named_files, check_named_run, check_run_to_continue
from mlxlab.cli.train.resumed_sweep import resume_sweep
from mlxlab.cli.train.sweep_preview import names_sweep, preview_sweep
from mlxlab.config.issues import one_line
from mlxlab.config.paths import conf_dir
from mlxlab.distributed.launch_env import check_parallel
from mlxlab.errors import ConfigError, NotAllowedError, UserError
from mlxlab.experiment import experiment
from mlxlab.nearest import did_you_mean, nearest
from mlxlab.terminal.messages import survives_closed_pipes

if TYPE_CHECKING:
    from argparse import Namespace

    from mlxlab.config.hydra.compose import Composer


_TOP = """Trains one experiment, or with -m a sweep of them.

    mlxlab train [group=option ...] [key=value ...]
"""

_BOTTOM = """
Examples
    mlxlab train
    mlxlab train model=cnn_hybrid model/size=tiny tracking=none
    mlxlab train experiment=quick trainer.learning_rate=1e-4 name=first
    mlxlab train -m model=bert,cnn_hybrid trainer.learning_rate=1e-4,3e-4 'seed=range(3)'
    mlxlab train hydra.run.dir=outputs/mine resume=auto
    mlxlab train rerun=outputs/mine trainer.epochs=5
    mlxlab train model=transformer --help          the keys of another choice

Flags
    -m, --multirun       run every combination of the values given: a=1,2 b=3,4; sweep=NAME needs no -m
                         with hydra/sweeper=search the trials that a sampler proposes: docs/how_to/sweeps.md
    sweep.resume=FOLDER  run the jobs that are missing in the folder of a sweep or search
    --dry-run            check everything, print the jobs of a sweep, or the growth schedule of one run, and stop
    --cfg job            print the composed config and stop; with --resolve also its interpolations
    --config-dir DIR     a folder of your own options in addition to conf/: DIR/experiment/mine.yaml, experiment=mine
    --config-name NAME   another primary config than train
    --info [WHAT]        where Hydra finds its configs: defaults-tree, searchpath, plugins, ...
    --hydra-help         Hydra's own help

Outputs go to outputs/<day>/<time>-<id>/, sweeps to multirun/<day>/<time>-<id>/<job>/.
"""


def main(argv: list[str] | None = None) -> int:
    return run_subcommand(
        argv, act=partial(_train, owns_process=argv is None), show_help=show_help, needs_args=False
    )


def _train(argv: list[str], *, owns_process: bool) -> int:
    if owns_process:
        gc.disable()  # modules and configs are no garbage, and searching them takes 0.1 s
    from mlxlab.config.hydra.compose import Composer

    flags = resume_sweep(_flags(argv))
    composer = Composer(
        conf=_folder(flags.config_path, "--config-path") or conf_dir(),
        overrides=flags.overrides,
        extra=_folder(flags.config_dir, "--config-dir"),
        name=flags.config_name or "train",
        multirun=flags.multirun
        or names_sweep(flags.overrides)
        or any(arg.lstrip("+") == "hydra.mode=MULTIRUN" for arg in flags.overrides),
        choices=partial(experiment.resumed_choices, flags.overrides),
        check_job=check_named_files,
    )
    if not flags.shell_completion:
        composer = experiment.with_past_run(composer)
    if flags.cfg or flags.info or flags.hydra_help or flags.shell_completion:
        return _show(composer, flags)
    config = composer.checked()
    if not composer.multirun:
        check_named_run(config)
        check_run_to_continue(flags.overrides, begins=not flags.dry_run)
    if flags.dry_run or composer.multirun:
        gc.enable()
    if flags.dry_run:
        preview = preview_sweep if composer.multirun else experiment.preview_growth
        terminal.show(preview(composer, config))
        return 0
    if not composer.multirun:
        experiment.run_composed(composer, config, owns_process=owns_process)
        return 0
    from mlxlab.cli.train.multirun import sweep

    check_parallel(config.trainer.parallel)
    with survives_closed_pipes():
        return sweep(composer, config, experiment.run_experiment)


def _folder(path: str | Path | None, flag: str) -> Path | None:
    folder = Path(os.path.realpath(os.path.expanduser(path))) if path is not None else None
    if folder is not None and not os.path.isdir(folder):
        raise ConfigError(f"{flag} {one_line(str(path), 120)}: not a folder of config files")
    return folder


def _flags(argv: list[str]) -> "Namespace":
    """Hydra's own flags, in any order with the overrides."""
    from mlxlab.config.hydra.compose import get_args_parser

    parser = get_args_parser()
    parser.add_argument("--dry-run", action="store_true")

    def refuse(message: str) -> None:
        unknown = _unknown_flag(message, argv, [*parser._option_string_actions])
        raise ConfigError(unknown or f"{one_line(message)}; see --help")

    parser.error = refuse  # type: ignore[method-assign,assignment]
    flags = parser.parse_intermixed_args(_with_kind_of_config(argv))
    if flags.experimental_rerun is not None:
        raise NotAllowedError(
            "--experimental-rerun: runs code from a pickle; resume=<run folder> resumes a run"
        )
    for name in ("resolve", "package"):
        if getattr(flags, name) and not flags.cfg:
            raise ConfigError(f"--{name}: only together with --cfg")
    if flags.cfg and (flags.multirun or flags.run):
        raise ConfigError(
            "--cfg: shows the config instead of running it; leave out --run and --multirun"
        )
    return flags


def _unknown_flag(message: str, argv: list[str], known: list[str]) -> str:
    """The message on the first flag of `argv` that argparse does not know; "" if it knows all."""
    unknown = message.partition("unrecognized arguments: ")[2].split(" ")
    flags = [arg.partition("=")[0] for arg in argv if arg.startswith("-") and arg in unknown]
    if not flags:
        return ""
    hint = did_you_mean(nearest(flags[0], known)) or "; expected key=value, without dashes"
    return f"{flags[0]}: unknown flag{hint}"


def _with_kind_of_config(argv: list[str]) -> list[str]:
    """`--cfg` without a value is `--cfg job`."""
    followed = zip(argv, [*argv, ""][1:], strict=True)
    bare = [
        arg in ("--cfg", "-c") and (not text or "=" in text or text[0] == "-")
        for arg, text in followed
    ]
    return [
        text
        for arg, is_bare in zip(argv, bare, strict=True)
        for text in ([arg, "job"] if is_bare else [arg])
    ]


def _show(composer: "Composer", flags: "Namespace") -> int:
    """`--cfg`, `--info`, `--hydra-help` and shell completion, as Hydra prints them."""
    from mlxlab.config.hydra.compose import get_args_parser

    hydra, name, overrides = composer.hydra, composer.name, composer.overrides
    try:
        if not (flags.cfg or flags.shell_completion):
            composer.guard()
        if flags.shell_completion:
            hydra.shell_completion(config_name=name, overrides=overrides)
        elif flags.cfg:
            config = composer.checked()
            hydra.compose_config = lambda **_: config  # type: ignore[method-assign]  # instead of composing again
            hydra.show_cfg(name, overrides, flags.cfg, flags.package, flags.resolve)
        elif flags.info:
            hydra.show_info(flags.info, config_name=name, overrides=overrides)
        else:
            hydra.hydra_help(config_name=name, args_parser=get_args_parser(), args=flags)
    except (UserError, BrokenPipeError):
        raise
    except (
        SystemExit
    ) as stop:  # Hydra has printed what is wrong, for example that there is no such package
        return ConfigError.exit_code if stop.code else 0
    except Exception as error:
        if not flags.shell_completion:
            composer.checked()  # reports the error as one line
        message = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ConfigError(f"{' '.join(overrides)}: {one_line(message)}") from error
    return 0


def show_help(args: list[str]) -> str:
    """The help text, with the keys of the options that `args` choose."""
    from mlxlab.config.help_index import chosen, folders, groups, lines

    conf = folders(conf_dir(), args)
    options = chosen(conf, [arg for arg in args if not arg.startswith("-")])
    text = [_TOP, "Groups (* is the default or the chosen option)"]
    for group, names in groups(conf).items():
        marks = {name: "*" if name == options.get(group) else " " for name in names}
        text += [
            f"  {group}=",
            *(f"    {marks[name]} {name:<16} {doc}" for name, doc in names.items()),
        ]
    text.append("\nKeys: default, expected values, meaning")
    for line in lines(conf, options):
        meaning = "; ".join(filter(None, [line.expected, line.description]))
        text += two_columns(f"  {line.key}={line.default}", meaning, 46)
    return "\n".join([*text, _BOTTOM])
