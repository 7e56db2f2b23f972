"""`train --help`: groups, options, keys and examples, read from the files of conf/ without importing Hydra or MLX."""

import sys

from mlxlab.cli.args import two_columns
from mlxlab.config.help_index import chosen, groups, lines
from mlxlab.config.paths import conf_dir

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
        text.append(f"  {group}=")
        for name, description in names.items():
            text.append(f"    {'*' if name == options.get(group) else ' '} {name:<16} {description}")
    text.append("\nKeys: default, expected values, meaning")
    for line in lines(conf, options):
        meaning = f"{line.expected}; {line.description}" if line.description else line.expected
        text += two_columns(f"  {line.key}={line.default}", meaning, 46)
    return "\n".join([*text, _BOTTOM.format(program=program)])
