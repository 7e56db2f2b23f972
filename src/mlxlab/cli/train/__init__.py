"""Trains one experiment, or a sweep of them: the Hydra app of `app.py`, with errors of one line each.

Hydra's flags and `--dry-run` are read before Hydra is imported: a mistyped one is refused in one line.
"""

import gc
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

from mlxlab.cli.app import run_subcommand
from mlxlab.cli.train.resumed_sweep import resume_sweep
from mlxlab.config.issues import format_issues
from mlxlab.config.paths import search_folders, typed_folders
from mlxlab.errors import ConfigError, NotAllowedError, UserError, hides_interrupt
from mlxlab.terminal.messages import handlers_restored, survives_closed_pipes
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.tables import hang
from mlxlab.terminal.wording import one_line

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
    --dry-run            check everything, list the jobs of a sweep, or take one step of a run, and stop; writes nothing
    --cfg job            print the composed config and stop; with --resolve also its interpolations
    --config-dir DIR     a folder of your own options in addition to conf/: DIR/experiment/mine.yaml, experiment=mine
    --config-name NAME   another primary config than train
    --info [WHAT]        where Hydra finds its configs: defaults-tree, searchpath, plugins, ...
    --hydra-help         Hydra's own help

Outputs go to outputs/<day>/<time>-<id>/, sweeps to multirun/<day>/<time>-<id>/<job>/.
"""


_SWITCHES = (
    "--version",
    "--hydra-help",
    "--resolve",
    "--dry-run",
    "-r --run",
    "-m --multirun",
    "-sc --shell-completion",
)
_VALUES = (
    "--experimental-rerun",
    "-p --package",
    "-cn --config-name",
    "-cp --config-path",
    "-cd --config-dir",
)
# Hydra does not know `--dry-run`; config_dir is in our search path instead, so that its files are read within limits.
_NOT_FOR_HYDRA = ("overrides", "dry_run", "config_dir")
_MAX_CHARACTERS = 10_000
_MAX_DEPTH = 30
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def main(argv: list[str] | None = None) -> int:
    return run_subcommand(
        argv, act=partial(_train, owns_process=argv is None), show_help=show_help, needs_args=False
    )


def _train(args: list[str], *, owns_process: bool) -> int:
    if owns_process:
        gc.disable()  # modules and configs are no garbage, and searching them takes 0.1 s
    flags = read_flags(args)
    from mlxlab.cli.train import app

    app.command = app.Command(dry_run=flags.dry_run, owns_process=owns_process)
    if not flags.shell_completion:
        _complete(flags)
    _call_until_valid(flags)
    return 0


def _call_until_valid(flags: Namespace) -> None:
    """Runs the app; where it refuses the typed overrides, with those that it may lack."""
    from mlxlab.cli.train import app

    try:
        _call_app(flags)
    except BrokenPipeError:
        raise
    except Exception as error:
        if app.command.has_begun or hides_interrupt(error):
            raise
        if not app.command.is_valid and _add_resumed_options(flags):
            return _call_until_valid(flags)
        if isinstance(error, UserError):
            raise
        _repair(flags, error)
        _call_app(flags)


def _complete(flags: Namespace) -> None:
    """Adds the overrides of the run or sweep that a command repeats or continues."""
    from mlxlab.cli.train import app
    from mlxlab.run.entry import complete_overrides

    for text in flags.overrides:
        check_limits(text)
    resume_sweep(flags)
    flags.multirun = flags.multirun or names_sweep(flags.overrides)
    flags.overrides = complete_overrides(flags.overrides, flags.config_dir)
    app.command.overrides = flags.overrides


def _add_resumed_options(flags: Namespace) -> bool:
    """Adds the options of the run that is resumed, which typed keys may need; whether there are new ones."""
    from mlxlab.cli.train import app
    from mlxlab.run.entry import resumed_options

    if flags.multirun or app.command.resumed:
        return False
    app.command.resumed = resumed_options(app.command.overrides)
    flags.overrides = [*app.command.resumed, *flags.overrides]
    return bool(app.command.resumed)


def names_sweep(overrides: list[str]) -> bool:
    """Whether an option of the group `sweep` is typed: it makes several jobs, as `-m` does, unless hydra.mode=RUN."""
    pairs = [text.lstrip("+").partition("=") for text in overrides]
    is_named = any(name == "sweep" and option not in ("", "null") for name, _, option in pairs)
    return is_named and ("hydra.mode", "=", "RUN") not in pairs


def _call_app(flags: Namespace) -> None:
    """Runs the Hydra app with these flags; raises what it ends with."""
    from hydra.core.global_hydra import GlobalHydra

    from mlxlab.cli.train.app import app

    GlobalHydra.instance().clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises where it would print and exit with 1.
    _set_folders(flags)
    typed = sys.argv
    sys.argv = [typed[0], *to_args(flags)]
    try:
        with ExitStack() as stack:
            stack.enter_context(handlers_restored())
            if flags.multirun:
                gc.enable()
                stack.enter_context(survives_closed_pipes())
            app()
    except SystemExit as stop:
        if isinstance(stop.code, BaseException):
            raise stop.code from None
        raise
    finally:
        sys.argv = typed


def _set_folders(flags: Namespace) -> None:
    """Adds the folder of `--config-dir` to those of config files."""
    typed_folders.clear()
    if flags.config_dir is not None:
        typed_folders["command-line"] = flags.config_dir


def _repair(flags: Namespace, refusal: Exception) -> None:
    """Takes overrides that Hydra composes, where it refused the typed ones though their config is valid.

    Raises:
        ConfigError: all that is wrong with them.
    """
    from mlxlab.cli.train import app
    from mlxlab.config.hydra.compose import PRIMARY, find_issues, open_hydra
    from mlxlab.config.hydra.job import as_typed, explain, parse
    from mlxlab.sweep import is_ours

    if flags.shell_completion or app.command.is_valid:
        raise ConfigError(explain(refusal)) from None
    swept = []
    if flags.multirun:
        typed, _ = parse(flags.overrides, multirun=True)
        swept = [text for text, override in typed.items() if override.is_sweep_override()]
    texts = [text for text in flags.overrides if text not in swept]
    with open_hydra(flags.config_path):
        config, issues = find_issues(texts, flags.config_name or PRIMARY, refused=True)
    if issues or config is None:
        raise ConfigError(format_issues(issues)) from None
    overrides = config.hydra.overrides
    composed = [*as_typed(overrides.hydra), *as_typed(overrides.task)]
    forced = [text for text in composed if text not in texts]
    unchecked = [text for text in forced if text.startswith("++hydra.")]
    for name in ("sweeper", "launcher"):
        if flags.multirun and is_ours(config.hydra[name]):  # `sweep_check` names its keys.
            unchecked = [text for text in unchecked if not text.startswith(f"++hydra.{name}.")]
    if unchecked or not forced:
        raise ConfigError(explain(refusal)) from None
    flags.overrides = [*composed, *swept]


def show_help(args: list[str]) -> str:
    """The help text, with the keys of the options that `args` choose."""
    from mlxlab.config.option_files import chosen, groups, lines

    flags = read_flags([arg for arg in args if arg not in ("-h", "--help")])
    _set_folders(flags)
    conf = list(search_folders().values())
    options = chosen(conf, flags.overrides)
    text = [_TOP, "Groups (* is the default or the chosen option)"]
    for group, names in groups(conf).items():
        text.append(f"  {group}=")
        for name, doc in names.items():
            mark = "*" if name == options.get(group) else " "
            text.append(f"    {mark} {name:<16} {doc}")
    text.append("\nKeys: default, expected values, meaning")
    for line in lines(conf, options):
        meaning = "; ".join(filter(None, [line.expected, line.description]))
        text += hang(f"  {line.key}={line.default}", meaning, 46, 120)
    return "\n".join([*text, _BOTTOM])


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split(" ")[0]
        if not unknown:
            raise ConfigError(f"{one_line(message)}; see --help")
        flag = unknown.partition("=")[0]
        near = did_you_mean(nearest(flag, self._option_string_actions))
        raise ConfigError(f"{flag}: unknown flag{near or '; expected key=value, without dashes'}")


def read_flags(args: Sequence[str]) -> Namespace:
    """The flags and the overrides of a command line, which may stand in any order.

    Raises:
        ConfigError: a flag is unknown, or does not go with the others.
        NotAllowedError: a pickle was to be run.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in _SWITCHES:
        parser.add_argument(*names.split(), action="store_true")
    for names in _VALUES:
        parser.add_argument(*names.split())
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=_INFO)
    flags = parser.parse_intermixed_args(args)
    _check(flags)
    return flags


def _check(flags: Namespace) -> None:
    if flags.experimental_rerun is not None:
        raise NotAllowedError(
            "--experimental-rerun: runs code from a pickle; resume=<run folder> resumes a run"
        )
    for name in ("config_path", "config_dir"):
        folder = getattr(flags, name)
        if folder is None:
            continue
        path = Path(os.path.realpath(os.path.expanduser(folder)))
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long.
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} {one_line(folder, 120)}: not a folder of config files")
        setattr(flags, name, path)


def check_limits(text: str) -> None:
    """ConfigError for what no override may hold."""
    depths = accumulate((character in "[{(") - (character in "]})") for character in text)
    fault = None
    if not text.isprintable():
        fault = "a control character in an override"
    elif len(text) > _MAX_CHARACTERS:
        fault = f"{len(text):,} characters; an override may have {_MAX_CHARACTERS:,}"
    elif max(depths, default=0) > _MAX_DEPTH:
        fault = f"nested more than {_MAX_DEPTH} deep"
    if fault is not None:
        raise ConfigError(f"{one_line(text, 80)}: {fault}")


def to_args(flags: Namespace) -> list[str]:
    """The arguments of these flags that Hydra reads."""
    args = []
    for name, value in vars(flags).items():
        flag = f"--{name.replace('_', '-')}"
        if not value or name in _NOT_FOR_HYDRA:
            continue
        args.append(flag if value is True else f"{flag}={value}")
    return [*args, *flags.overrides]
