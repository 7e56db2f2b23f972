"""The process that uploads the journal of one run, started by the run: `python -m` with this module."""

import json
import os
from contextlib import suppress
from pathlib import Path

from mlxlab.extensions.tracking_services.destination import lock_path
from mlxlab.extensions.tracking_services.service import Service
from mlxlab.extensions.tracking_services.trackio import Trackio
from mlxlab.extensions.tracking_services.upload import ServiceUploader
from mlxlab.extensions.tracking_services.wandb import Wandb
from mlxlab.tracking.mlflow.queue import lock

SERVICES = {"wandb": Wandb, "trackio": Trackio}
LOCK_SECONDS = 60.0  # that the process before this one may take to end
NICENESS = 5  # With 15 an upload starved beside two busy processes.


def main() -> None:
    job = json.loads(os.environ.pop("MLXLAB_UPLOAD"))
    service: Service = SERVICES[job["service"]](**job["options"])
    project = Path(job["project"])
    os.nice(NICENESS)
    os.chdir(project)
    with lock(lock_path(project, job["uid"], service.name), LOCK_SECONDS) as is_only_one:
        if is_only_one:
            with suppress(Exception):  # the state file says why
                ServiceUploader(service, Path(job["folder"]), job["uid"], project).upload()


if __name__ == "__main__":
    main()
