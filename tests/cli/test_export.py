"""`export merge`: a folder that is read like a run, with the adapters in the weights."""

import numpy as np
import pytest

from mlxlab.cli.export import main
from mlxlab.inference.restore import restore_model
from mlxlab.models.layers import named_parameters
from support.processes import run_here, tiny_overrides

SHORT = ["trainer.max_steps=4", "trainer.eval_every=2", "trainer.learning_rate=0.01"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    adapter = ["model/adapter=dora", "model.adapter.targets=[attention.*, embedding]"]
    done = run_here(*tiny_overrides(*adapter, *SHORT), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def predictions(folder, out):
    done = run_here(f"run={folder}", "input=test", f"output={out}/predictions.csv", script="predict")
    assert done.returncode == 0, done.stderr
    return np.genfromtxt(out / "predictions.csv", delimiter=",", skip_header=1)[:, 2:]


def test_a_merged_model_predicts_what_the_adapted_one_does(run, tmp_path, capsys):
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run}", f"out={merged}"]) == 0
    assert capsys.readouterr().out == f"{merged}\n"
    adapted, plain = (restore_model(folder) for folder in (run, merged))
    assert {"backbone.embedding.base.weight"} <= named_parameters(adapted.model).keys()
    assert not [name for name in named_parameters(plain.model) if "lora" in name or ".base." in name]
    assert (plain.config["model"]["adapter"], plain.checkpoint.state["base"]) == (None, "")
    np.testing.assert_allclose(predictions(merged, tmp_path), predictions(run, tmp_path), atol=1e-5)
    again = run_here(*tiny_overrides(*SHORT, f"model.init_from={merged}"), f"hydra.run.dir={tmp_path}/next")
    assert again.returncode == 0, again.stderr


def test_what_cannot_be_merged_is_one_line(run, tmp_path, capsys):
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run}", f"out={merged}"]) == 0
    capsys.readouterr()
    for args, code, message in [
        (["merge", f"run={run}", f"out={merged}"], 73, "exists already"),
        (["merge", f"run={merged}", f"out={tmp_path}/twice"], 2, "no adapters to merge"),
        (["merge", f"run={tmp_path}/none", f"out={tmp_path}/x"], 66, "expected a run folder"),
        (["merge", f"run={run}", f"out={run}/metrics.json/x"], 74, "File exists"),
        (["merg", f"run={run}"], 2, "did you mean merge?"),
    ]:
        assert main(args) == code
        error = capsys.readouterr().err
        assert (message in error, len(error.splitlines())) == (True, 1), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged"], "something is left half-made"
