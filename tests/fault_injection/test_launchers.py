"""A grid with a launcher of Hydra or of a plugin continues as with our own: each job has recorded itself."""

import sys

import psutil
import pytest

from mlxlab.record.attempts import read_jobs
from support.processes import start, tiny_overrides, wait_for

pytestmark = [
    pytest.mark.fault_injection,
    pytest.mark.skipif(sys.platform == "darwin", reason="forks"),
]
PLUGINS = {
    "basic": "hydra",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
}


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_killed_grid_runs_only_what_is_missing(launcher, tmp_path):
    pytest.importorskip(PLUGINS[launcher])
    settings = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    folder = f"hydra.sweep.dir={tmp_path}/s"
    command = ["-m", "seed=0,1,2", f"hydra/launcher={launcher}", *settings, folder]
    process = start(*command, fresh=True)
    wait_for(tmp_path / "s" / "0" / "run.json", process)
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in family:
        each.kill()
    process.communicate()
    before = {folder.name: each for folder, each in read_jobs(tmp_path / "s").items()}

    again = start(*command, fresh=True)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    after = {folder.name: each for folder, each in read_jobs(tmp_path / "s").items()}
    assert {each.state for each in after.values()} == {"finished"}
    assert len(after) == 3
    for name, record in before.items():
        assert after[name] == record or not record.ended, "a job ran twice"
