"""examples/ci: the steps of the workflow."""

import pytest
import yaml
from tests.wheel_versions import supported_versions

from support.example_projects import EXAMPLES, programs, shell

[JOB] = yaml.safe_load((EXAMPLES / "ci" / "train-and-verify.yml").read_text())["jobs"].values()
STEPS = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}


def test_the_workflow_runs_on_every_supported_version_of_python():
    assert JOB["strategy"]["matrix"]["python"] == supported_versions()
    assert list(STEPS) == ["Install", "Train", "Verify", "Check the accuracy"]


@pytest.mark.fault_injection
def test_its_steps_train_verify_and_accept_the_model(tmp_path):
    path = programs(tmp_path / "bin")
    steps = {name: run for name, run in STEPS.items() if name != "Install"}
    printed = {name: shell(run, tmp_path, PATH=path) for name, run in steps.items()}
    assert printed["Verify"].endswith("verified\n")
    assert printed["Check the accuracy"].startswith("accuracy 0.")
    checkpoints = tmp_path / "outputs" / "ci" / "checkpoints"
    weights = next(checkpoints.glob("step-00000040/*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AssertionError, match="step-00000040"):
        shell(STEPS["Verify"], tmp_path, PATH=path)
