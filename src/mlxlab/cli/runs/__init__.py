"""Lists, finds, shows and compares tracked runs, and uploads runs that are not in the store yet.

    mlxlab runs list [limit=20] [sort=valid/accuracy] [filter='...'] [sweep=RUN] [params=seed] [best=valid/loss]
    mlxlab runs find 'metrics.valid/accuracy > 0.8 and params.model.name = bert'
    mlxlab runs show run=RUN
    mlxlab runs compare RUN RUN ...
    mlxlab runs diff RUN RUN
    mlxlab runs open RUN
    mlxlab runs doctor [FOLDER ...] [dry_run=true]
    mlxlab runs sync [RUN_FOLDER ...] [uri=sqlite:///mlflow.db] [artifacts=FOLDER] [register=true]
    mlxlab runs sync RUN_FOLDER ... to=wandb [project=mlxlab] [mode=offline]

RUN is the beginning of a run's id, its name, or its folder; show, compare, diff and open also take the folder of a run
that is in no store (tracking=none). compare puts settings and metrics of single runs side by side, diff prints what
differs, data and code too; `mlxlab compare` tests which method is better over seeds and folds. `sync` refuses a folder
that was recorded for another store unless uri= (and artifacts=, if it keeps them elsewhere) names the store to upload
to. `doctor` closes runs whose process is dead, and uploads what was not sent, also of runs below FOLDER.

All print JSON with --json.

A filter has conditions joined by `and`, `or`, `not` and parentheses. A condition compares a field with a value by one
of = != < <= > >=, `in ('a', 'b')` or `like 'bert%'`. Fields are metrics.KEY (its latest value), params.KEY, tags.KEY,
name, status, experiment, folder, id, uid, parent (a run id), start and end (2026-01-31T12:00), seconds. A run without
the field meets no condition on it.
"""

import sys

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.cli.runs import doctor, open_run, reading, upload

main = build_main(
    __doc__,
    {
        "list": Subcommand(reading.list_runs),
        "find": Subcommand(reading.find, forward_prefix=""),
        "show": Subcommand(reading.show),
        "compare": Subcommand(reading.compare, num_positional=(2, 20)),
        "diff": Subcommand(reading.show_diff, num_positional=(2, 2)),
        "open": Subcommand(open_run.open_run),
        "doctor": Subcommand(doctor.doctor, num_positional=(0, sys.maxsize)),
        "sync": Subcommand(upload.sync, num_positional=(0, sys.maxsize)),
    },
)
