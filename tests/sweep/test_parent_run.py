"""A multirun is a parent run with a child per job, also when jobs fail."""

import subprocess
import sys

import pytest

from support.tracking import project_fixture, query_store, wait_until  # noqa: F401

CONFIG = """
defaults: [_self_]
x: 1
name: null
tracking:
  _target_: mlxlab.tracking.journal.Journal
  uri: sqlite:///{project}/mlruns/mlflow.db
  artifacts: null
  experiment: mlxlab
  log_models: false
  wait: 30.0
hydra:
  callbacks: {{parent_run: {{_target_: mlxlab.sweep.parent_run.ParentRun}}}}
  sweep: {{dir: "{project}/multirun/${{now:%Y}}", subdir: "job${{hydra.job.num}}"}}
  job: {{chdir: false}}
"""

APP = """
import sys
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from mlxlab.config.instantiate import instantiate

@hydra.main(version_base="1.3", config_path=sys.argv.pop(), config_name="app")
def main(cfg):
    folder, project = Path(HydraConfig.get().runtime.output_dir), Path(sys.path[0] or ".")
    tracker = instantiate(OmegaConf.to_container(cfg.tracking), folder=folder, project=project)
    tracker.start({"x": cfg.x}, {})
    tracker.log_metrics(1, {"loss": 1.0})
    if cfg.x == 3:
        tracker.end("FAILED")
        raise ValueError("three")
    tracker.end("FINISHED")
    return 1.0

main()
"""

PARENTS = """
select name, status from runs
where run_uuid not in (select run_uuid from tags where key = 'mlflow.parentRunId')
"""

CHILDREN = """
select r.name, r.status, p.name from runs r join tags t on t.run_uuid = r.run_uuid and t.key = 'mlflow.parentRunId'
join runs p on p.run_uuid = t.value order by r.name
"""


def sweep(project, *args):
    (project / "app.yaml").write_text(CONFIG.format(project=project))
    (project / "app.py").write_text(APP)
    command = [sys.executable, str(project / "app.py"), *args, str(project)]
    return subprocess.run(command, capture_output=True, text=True, cwd=project, timeout=120)


@pytest.mark.parametrize(
    ("x", "status"), [pytest.param(2, "FINISHED", marks=pytest.mark.slow), (3, "FAILED")]
)
def test_the_jobs_of_a_multirun_are_children_of_one_run_which_fails_with_them(project, x, status):
    done = sweep(project, "-m", f"x=1,{x}")
    assert (done.returncode == 0) == (status == "FINISHED"), done.stderr
    wait_until(lambda: [row[1] for row in query_store(project, PARENTS)] == [status])
    [(name, _)] = query_store(project, PARENTS)
    assert query_store(project, CHILDREN) == [("job0", "FINISHED", name), ("job1", status, name)]
    overrides = query_store(project, "select value from tags where key = 'mlxlab.overrides'")
    assert overrides == [(f"x=1,{x}",)]


def test_a_sweep_without_tracking_makes_no_store(project):
    target = "mlxlab.tracking.tracker.NoTracker"
    done = sweep(project, "-m", "x=1,2", "~tracking", f"+tracking._target_={target}")
    assert done.returncode == 0, done.stderr
    assert not (project / "mlruns").exists()
