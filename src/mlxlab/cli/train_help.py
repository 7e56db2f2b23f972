"""`train --help`: groups, options, keys and examples, read from the files of conf/ without importing Hydra or MLX."""

import sys
from textwrap import wrap

from mlxlab.config.help_index import KeyHelp, chosen, groups, lines
from mlxlab.config.paths import conf_dir

_WIDTH, _COLUMN = 120, 46

_TOP = """Trains one experiment, or with -m a sweep of them.

    {program} [group=option ...] [key=value ...]
"""

_BOTTOM = """
Examples
    {program}
    {program} model=cnn_hybrid model/size=tiny tracking=none
    {program} experiment=quick trainer.learning_rate=1e-4 name=first
    {program} -m model=bert,cnn_hybrid trainer.learning_rate=1e-4,3e-4 'seed=range(3)'
    {program} hydra.run.dir=outputs/mine resume=auto
    {program} model=transformer --help          the keys of another choice

Flags
    -m, --multirun       run every combination of the values given: a=1,2 b=3,4
    --cfg job            print the composed config and stop; with --resolve also its interpolations
    --config-dir DIR     a folder of your own options in addition to conf/: DIR/experiment/mine.yaml, experiment=mine
    --config-name NAME   another primary config than train
    --info [WHAT]        where Hydra finds its configs: defaults-tree, searchpath, plugins, ...
    --hydra-help         Hydra's own help; -sc install=bash prints shell completion

Outputs go to outputs/<day>/<time>-<id>/, sweeps to multirun/<day>/<time>-<id>/<job>/.
"""


def show_help(overrides: list[str]) -> str:
    """The help text, with the keys of the options that `overrides` choose."""
    conf, program = conf_dir(), "scripts/train.py" if sys.argv[0].endswith("train.py") else "mlxlab train"
    options = chosen(conf, overrides)
    text = [_TOP.format(program=program), "Groups (* is the default or the chosen option)"]
    for group, names in groups(conf).items():
        text += _group(group, names, options.get(group))
    text.append("\nKeys: default, expected values, meaning")
    for line in lines(conf, options):
        text += _line(line)
    return "\n".join([*text, _BOTTOM.format(program=program)])


def _group(group: str, names: dict[str, str], default: str | None) -> list[str]:
    shown = [f"  {group}="]
    for option, description in names.items():
        shown.append(f"    {'*' if option == default else ' '} {option:<16} {description}")
    return shown


def _line(line: KeyHelp) -> list[str]:
    head = f"  {line.key}={line.default}"
    text = f"{line.expected}; {line.description}" if line.description else line.expected
    wrapped = wrap(text, _WIDTH - _COLUMN)
    first = [head.ljust(_COLUMN) + wrapped[0]] if len(head) < _COLUMN else [head, " " * _COLUMN + wrapped[0]]
    return first + [" " * _COLUMN + more for more in wrapped[1:]]
