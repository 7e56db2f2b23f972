"""Shell completion of `mlxlab VERB ...`: verbs, and for `train` the groups, options and keys that Hydra completes."""

import os
from collections.abc import Sequence

FLAGS = ("-sc", "--shell-completion")


def complete(args: Sequence[str], verbs: Sequence[str]) -> int:
    """Prints the script that `eval` runs (`install=bash`), or what can follow the line typed so far (`query=bash`).

    Hydra's script runs `mlxlab -sc query=bash` with the line in COMP_LINE; to Hydra, `mlxlab train` is the program.
    """
    from mlxlab.cli import train

    if any(arg.startswith("query=") for arg in args):
        typed = os.environ.get("COMP_LINE", "").split(" ")[1:]  # without the program
        verb = typed[0] if typed else ""
        if len(typed) < 2:
            print(" ".join(name for name in verbs if name.startswith(verb)))
            return 0
        if verb != "train":
            return 0
        os.environ["COMP_LINE"] = " ".join(["mlxlab", *typed[1:]])
    return train.main([FLAGS[0], *args])
