"""Lists, shows and compares tracked runs, and uploads runs that are not in the store yet.

    mlxlab runs list [in=FOLDER] [limit=20] [sort=valid/accuracy] [filter='...'] [metrics=valid/loss] [params=seed]
    mlxlab runs show RUN
    mlxlab runs diff RUN RUN
    mlxlab runs experiments
    mlxlab runs delete RUN ...
    mlxlab runs restore RUN ...
    mlxlab runs clean [RUN_FOLDER ...] [dry_run=true] [gone=true]
    mlxlab runs sync [RUN_FOLDER ...] [uri=sqlite:///mlflow.db] [artifacts=FOLDER]
    mlxlab runs sync RUN_FOLDER ... to=wandb [project=mlxlab]

RUN is the beginning of a run's id, its name, or its folder; show and diff also take the folder of a run that is in
no store (tracking=none). diff prints what differs: settings, data, code, metrics; `mlxlab compare` tests which method
is better over seeds and folds. `sync` refuses a folder
that was recorded for another store unless uri= (and artifacts=, if it keeps them elsewhere) names the store to upload
to.

All print JSON with --json.

A filter is in MLflow's language (https://mlflow.org/docs/latest/search-runs): conditions on metrics.`KEY`,
params.`KEY`, tags.`KEY` and attributes, joined by `and`.
"""

ACTIONS = {
    "list": "reading.list_runs",
    "show": "reading.show",
    "diff": "reading.show_diff",
    "experiments": "keeping.experiments",
    "delete": "keeping.delete",
    "restore": "keeping.restore",
    "clean": "cleaning.clean",
    "sync": "upload.sync",
}
ALIASES = {"in": "below"}
