"""`export`: a folder that is read like a run, with the adapters in the weights, or with weights in few bits."""

import json
import re

import numpy as np
import pytest

from mlxlab.errors import InputNotFoundError
from mlxlab.evaluation.parts.initial_weights import find_weights
from mlxlab.inference.restore import restore_model
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.layers import named_parameters
from mlxlab.past_runs.collect_record import read_info
from support.commands import command
from support.processes import run_here, tiny_overrides

main = command("export")

SHORT = ["trainer.max_steps=4", "trainer.eval_every=2", "trainer.learning_rate=0.01"]
FOUR_BITS = ["mode=nvfp4", "group_size=16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    adapter = ["model/adapter=dora", "model.adapter.targets=[attention.*, embedding]"]
    done = run_here(*tiny_overrides(*adapter, *SHORT), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def predictions(folder, out):
    args = [f"run={folder}", "input=test", f"output={out}/predictions.csv"]
    done = run_here(*args, script="predict")
    assert done.returncode == 0, done.stderr
    return np.genfromtxt(out / "predictions.csv", delimiter=",", skip_header=1)[:, 2:]


def test_a_merged_model_predicts_what_the_adapted_one_does(run, tmp_path, capsys):
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run}", f"out={merged}"]) == 0
    assert capsys.readouterr().out == f"{merged}\n"
    adapted, plain = (restore_model(folder) for folder in (run, merged))
    assert {"backbone.embedding.base.weight"} <= named_parameters(adapted.model).keys()
    assert not re.findall(r"lora|\.base\.", " ".join(named_parameters(plain.model)))
    assert (plain.config["model"]["adapter"], plain.checkpoint.state["base"]) == (None, "")
    np.testing.assert_allclose(predictions(merged, tmp_path), predictions(run, tmp_path), atol=1e-5)
    assert find_weights(str(merged)).read()[0].keys() == named_parameters(plain.model).keys()
    before = sorted(merged.rglob("*"))
    short = ["trainer.max_steps=9", "tracking=none"]
    for resume, folder, refused in (
        ("auto", merged, "which no run resumes"),
        ("null", merged, "in which no run begins"),
        (merged, tmp_path / "fork", "which no run resumes"),
    ):
        resumed = run_here(f"resume={resume}", *short, f"hydra.run.dir={folder}")
        message = f"{merged}: an exported model, {refused}; model.init_from={merged} uses"
        assert resumed.returncode == 2
        assert message in resumed.stderr
    assert sorted(merged.rglob("*")) == before, "nothing is written into a folder that is refused"
    with pytest.raises(InputNotFoundError, match=f"evaluate it with: mlxlab evaluate run={merged}"):
        read_info(merged)


def test_what_cannot_be_merged_is_one_line(run, tmp_path, capsys):
    merged = tmp_path / "merged"
    assert main(["merge", f"run={run}", f"out={merged}"]) == 0
    capsys.readouterr()
    for args, code, message in [
        (["merge", f"run={run}", f"out={merged}"], 73, "exists already"),
        (["merge", f"run={merged}", f"out={tmp_path}/twice"], 2, "no adapters to merge"),
        (["merge", f"run={run}/run.json", f"out={tmp_path}/x"], 66, "run.json: a file, expected a"),
        (["merge", f"run={run}", f"out={run}/inference/x"], 2, f"of the run; expected {run}/x"),
        (["merg", f"run={run}"], 2, "did you mean merge?"),
    ]:
        assert main(args) == code
        error = capsys.readouterr().err
        assert (message in error, len(error.splitlines())) == (True, 1), error
    assert list(tmp_path.iterdir()) == [merged], "something is left half-made"


def evaluate(folder):
    done = run_here(f"run={folder}", "--json", script="evaluate")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["metrics"]


def test_the_report_is_that_of_the_two_folders(run, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["quantize", f"run={run}", f"out={out}", *FOUR_BITS]) == 0
    report = json.loads((out / "quantization.json").read_text())
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    quantised = restore_model(out).model
    layers = [layer for _, layer in quantised.named_modules() if isinstance(layer, QuantizedLayer)]
    assert (report["layers"], report["bits"], report["mode"]) == (len(layers), 4, "nvfp4")
    assert report["bytes"][1] < 0.3 * report["bytes"][0]
    before, after = evaluate(run), evaluate(out)
    assert before != after, "4 bits change something"
    for name, pair in report["metrics"].items():
        split, _, metric = name.partition("/")
        assert split == "valid"
        np.testing.assert_allclose(pair, [before[metric], after[metric]], atol=1e-4)


def test_what_cannot_be_quantised_is_one_line(run, tmp_path, capsys):
    out = f"out={tmp_path}/x"
    for args, code, message in [
        ([out, "bits=7"], 2, "bits=7: expected one of 2, 3, 4, 5, 6, 8 or null, got 7"),
        ([out, "bits=null"], 2, "expected 2, 3, 4, 5, 6 or 8"),
        ([out, "mode=mxfp4"], 2, "model.quantization: mxfp4 quantization requires group size 32"),
        ([out, "evaluate=false"], 2, "no layer can be quantised"),
        ([out, "group_sice=32"], 2, "did you mean group_size?"),
        ([out, "skip=[layers.9]", *FOUR_BITS], 2, "skip: layers.9 matches nothing"),
        ([f"out={run}"], 73, "exists already"),
    ]:
        assert main(["quantize", f"run={run}", *args]) == code, args
        error = capsys.readouterr().err.splitlines()
        assert message in error[-1]
        assert len([line for line in error if "not quantised" not in line]) == 1, error
    assert not list(tmp_path.iterdir())
