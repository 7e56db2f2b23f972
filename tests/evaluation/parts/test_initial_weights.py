"""`model.init_from`: where initial weights may come from, and what is refused."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.arrays import digest
from mlxlab.checkpoint.store import load_named
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.evaluation.parts.initial_weights import find_weights
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Parent
from support.processes import passed, run_here, tiny_overrides

CHEAP = ["data.source=synthetic", "data.templates=[basic]", "data.augment.copies=1"]


def train(folder, *overrides):
    settings = {"trainer.eval_every": "2", "trainer.max_steps": "1"}
    settings |= dict(each.split("=", 1) for each in overrides)
    changes = [f"{key}={value}" for key, value in settings.items()]
    return run_here(*tiny_overrides(*CHEAP, *changes), f"hydra.run.dir={folder}")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    passed(train(folder, "trainer.max_steps=2"))
    return folder


def test_a_run_starts_from_the_best_weights_of_another_and_says_so(source, tmp_path):
    run = tmp_path / "run"
    options = [f"model.init_from={source}", "trainer.learning_rate=1e-30", "seed=5"]
    passed(train(run, *options))
    weights, best = load_named("last", run), load_named("best", source)
    for name, array in best.weights.items():
        np.testing.assert_array_equal(weights.weights[name], array)
    [record] = json.loads((run / "transfer.json").read_text())
    assert (record["source"], record["digest"]) == (str(source), digest(best.weights))
    assert sorted(record["weights"]["matched"]) == sorted(best.weights)
    metadata = weights.state["metadata"]
    assert metadata["initial_weights"] == {str(source): digest(best.weights)}
    assert metadata["tokenizer"] == best.state["metadata"]["tokenizer"]
    assert Parent("init_from", str(source)) in read_run(run).parents
    train(run, "resume=auto", "trainer.max_steps=2")
    resumed = load_named("last", run).state["metadata"]
    assert resumed["initial_weights"] == metadata["initial_weights"]


def test_a_compiled_file_of_fewer_layers_is_refused_unless_the_policy_allows_it(source, tmp_path):
    file, saved = tmp_path / "compiled.safetensors", load_named("last", source).weights
    mx.save_safetensors(str(file), {f"_orig_mod.{name}": array for name, array in saved.items()})
    options = [f"model.init_from={file}", "model.num_layers=2"]
    options += [f"data.tokenizer.path={source}/inference"]
    refused = train(tmp_path / "run", *options)
    assert refused.returncode == 77
    assert refused.stderr.startswith(f"model.init_from={file}: ")
    assert "16 missing (backbone.layers.1." in refused.stderr
    assert refused.stderr.count("\n") == 1
    share = refused.stderr.split("resume_policy.min_match=")[1].split()[0]
    allowed = passed(train(tmp_path / "run", *options, f"resume_policy.min_match={share}"))
    assert "25 renamed, 16 missing" in allowed.stderr


def test_what_init_from_may_name(source, tmp_path):
    best = load_named("best", source).path
    assert (
        find_weights(f"{source}/last").read()[0].keys() == find_weights(str(best)).read()[0].keys()
    )
    copied = shutil.copytree(best, tmp_path / "copied")
    alone = find_weights(str(copied))
    assert alone.tokenizer is None
    assert digest(alone.read()[0]) == digest(find_weights(str(source)).read()[0])
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copy(best / "model.safetensors", folder)
    assert find_weights(str(folder)).read()[0].keys() == alone.read()[0].keys()
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble" / "ensemble.json").write_text("{}")
    with pytest.raises(ConfigError, match="got an ensemble"):
        find_weights(str(tmp_path / "ensemble"))
    with pytest.raises(InputNotFoundError, match=r"^model\.init_from=.*no such folder"):
        find_weights(str(tmp_path / "none"))
    with pytest.raises(InputNotFoundError, match="no such file"):
        find_weights(str(tmp_path / "none.safetensors"))


def test_settings_of_the_run_that_no_array_shows_are_named(tmp_path):
    """Other positions give another model with the same arrays; a larger model gets the keys to pass."""
    decoder = ["model=transformer", "model.hidden_size=16", "model.num_heads=2"]
    decoder += ["model.num_kv_heads=1"]
    passed(train(tmp_path / "source", *decoder, "model.rope_theta=1e5"))
    origin = f"model.init_from={tmp_path}/source"
    other = passed(train(tmp_path / "other", *decoder, origin))
    needed = "model.rope_theta=100000.0\n"
    assert f"other settings; for the model of these weights: {needed}" in other.stderr
    refused = train(tmp_path / "refused", "model=transformer", origin)
    assert refused.returncode in (65, 77)
    needed = f"model.hidden_size=16 model.num_kv_heads=1 {needed}"
    assert f"for the model of these weights: {needed}" in refused.stderr
    assert "min_match" not in refused.stderr


def test_a_run_that_has_ended_does_not_take_another_model(source):
    files = [*source.glob("inference/*"), *source.glob("checkpoints/*/*"), source / "metrics.csv"]
    before = {path: path.read_bytes() for path in files if path.is_file()}
    refused = train(source, "resume=auto", "model.intermediate_size=48", "trainer.max_steps=2")
    assert refused.returncode == 2
    assert "model.intermediate_size: changed, but the run ended at step 2" in refused.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (source / "transfer.json").exists()
