"""Exports trained models for other uses.

    mlxlab export merge run=RUN_FOLDER out=FOLDER [checkpoint=best]

merge  folds the adapters (model/adapter=lora) into the weights, in float32

The new folder is like that of a run: `evaluate`, `predict` and `generate` take it as run=FOLDER, a new run starts from
it with model.init_from=FOLDER. It holds no optimizer state, so that nothing resumes from it.
"""

import logging
from pathlib import Path

from mlxlab.cli.app import Subcommand, build_main

log = logging.getLogger(__name__)


def _merge(run: Path, out: Path, checkpoint: str = "best") -> None:
    """Folds adapters into the weights.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.inference.export import merge_adapters

    restored = merge_adapters(run, out, checkpoint)
    log.info(f"merged the adapters of step {restored.checkpoint.step} of {run}")
    print(out)


main = build_main(__doc__, {"merge": Subcommand(_merge)})
