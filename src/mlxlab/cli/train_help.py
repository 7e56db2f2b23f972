"""`train --help`: groups, options, keys and examples, answered from the files of conf/ in a blink."""

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
    --config-dir DIR     a folder of your own options beside conf/: DIR/experiment/mine.yaml, experiment=mine
    --config-name NAME   another primary config than train
    --info [WHAT]        where Hydra finds its configs: defaults-tree, searchpath, plugins, ...
    --hydra-help         Hydra's own help; -sc install=bash prints shell completion

Outputs go to outputs/<day>/<time>-<id>/, sweeps to multirun/<day>/<time>-<id>/<job>/.
"""


def show_help(words: list[str]) -> str:
    """The whole text; `words` may choose options, whose keys are then shown."""
    conf, program = conf_dir(), "scripts/train.py" if sys.argv[0].endswith("train.py") else "mlxlab train"
    options = chosen(conf, words)
    parts = [_TOP.format(program=program), "Groups (* is the default, or what was chosen)"]
    for group, found in groups(conf).items():
        parts += _group(group, found, options.get(group))
    parts.append("\nKeys: default, what it may be, what it means")
    for line in lines(conf, options):
        parts += _line(line)
    return "\n".join([*parts, _BOTTOM.format(program=program)])


def _group(group: str, found: dict[str, str], default: str | None) -> list[str]:
    shown = [f"  {group}="]
    for option, words in found.items():
        shown.append(f"    {'*' if option == default else ' '} {option:<16} {words}")
    return shown


def _line(line: KeyHelp) -> list[str]:
    head = f"  {line.key}={line.default}"
    words = wrap(f"{line.expected}; {line.words}" if line.words else line.expected, _WIDTH - _COLUMN)
    first = [head.ljust(_COLUMN) + words[0]] if len(head) < _COLUMN else [head, " " * _COLUMN + words[0]]
    return first + [" " * _COLUMN + more for more in words[1:]]
