"""Trains a run again, by its run.lock, and says whether the results are the same.

    mlxlab reproduce RUN [out=FOLDER] [tolerance=0.01] [trust_folder=true]

Prints `bit-exact`, `within tolerance`, or `diverged at step k` with what differs: data, code, versions of packages,
device, threads. Exit code 0 for the first two, 76 for the third; with tolerance=0 all that is not bit-exact diverged.
The new run folder holds the same result in reproduction.json. Nothing is tracked or uploaded.
"""

import secrets
from datetime import datetime
from pathlib import Path

from mlxlab.cli.app import print_result
from mlxlab.config.paths import project_root
from mlxlab.errors import CheckpointUnavailableError
from mlxlab.files.atomic import refuse_existing
from mlxlab.files.untrusted import refuse_links
from mlxlab.schema.constraints import NonNegative


def reproduce(
    run: str,
    out: Path | None = None,
    tolerance: NonNegative = 0.01,
    trust_folder: bool = False,
    json: bool = False,
) -> int:
    """Reproduces a run.

    Args:
        run: a run folder, a run.lock, or the id or name of a run in the store.
        out: the new run folder; a new one below outputs/ if not given.
        tolerance: of the relative difference of a loss, and of the best value of the objective.
        trust_folder: uses callbacks of your own that the run had; for folders of your own.
        json: prints JSON.
    """
    from mlxlab import backend
    from mlxlab.past_runs.lookup import find_run_folder
    from mlxlab.past_runs.run_lock import read_lock

    now = datetime.now()
    name = f"{now:%H-%M-%S}-{secrets.token_hex(3)}"
    folder = out or project_root() / "outputs" / f"{now:%Y-%m-%d}" / name
    refuse_existing(folder)
    path = Path(run).expanduser()
    if not path.exists() and "/" not in run:
        path = find_run_folder(run)
    refuse_links(path)
    read_lock(path)  # before MLX is imported
    backend.prepare()
    from mlxlab.past_runs.run_lock import describe
    from mlxlab.run.verify import reproduce as train_again

    comparison = train_again(path, folder, tolerance, trusted=trust_folder)
    print_result(comparison, describe(comparison), json)
    if comparison["result"] == "diverged":
        return CheckpointUnavailableError.exit_code
    return 0
