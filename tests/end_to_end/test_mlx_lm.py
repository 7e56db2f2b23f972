"""An attention model, a mixture of experts and a recurrent model of mlx-lm through the whole program."""

import csv
import json

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import load_named
from mlxlab.inference.restore import restore_model
from mlxlab.models.layers import named_parameters
from support.processes import NO_PLOTS, final_state, run_here, succeed_here

load_model = pytest.importorskip("mlx_lm.utils", reason="needs the extra zoo").load_model

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-5}
SIZES |= {"rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": False}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
EXPERTS |= {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
RECURRENT = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "state_size": 8}
RECURRENT |= {"conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
CONFIGS = {
    "llama": {"model_type": "llama", **SIZES},
    "qwen3_moe": {"model_type": "qwen3_moe", **SIZES, **EXPERTS},
    "mamba": {"model_type": "mamba", **RECURRENT},
}
STACK = "[{op: stack, id: a, map: [0, 1, 1], when: {or_steps: 1}}]"
SHORT = ["trainer.max_steps=4", "trainer.eval_every=2", "checkpointing.every_steps=2"]
LORA = ["model/adapter=lora", "model.adapter.rank=2"]
TITANIC = ["data.batch_size=8", "data.prefetch=0", "data.baselines=false", "data.templates=[brief]"]


def model_of(name, **change):
    """The overrides of a model of each kind."""
    values = {**CONFIGS[name], **change}
    config = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
    return ["model=mlx_lm", f"model.config={{{config}}}", "tracking=none", *NO_PLOTS]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    file = tmp_path_factory.mktemp("text") / "text.txt"
    draw = np.random.default_rng(0)
    file.write_text("\n".join("".join(draw.choice(list("abcdef "), 60)) for _ in range(60)))
    settings = ["data=streaming", "data/tokenizer=characters", f"data.source={file}"]
    settings += ["data.reading.document_unit=line", "data.seq_len=16", "data.batch_size=4"]
    return [*settings, "data.prefetch=0"]


def train(folder, *overrides):
    return succeed_here(*overrides, f"hydra.run.dir={folder}")


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, text, tmp_path_factory):
    """A language model of each kind, trained on text: its name and its run folder."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train(folder, *model_of(request.param), *text, *SHORT)
    return request.param, folder


def test_training_from_a_checkpoint_gives_the_next_one_bit_for_bit(trained):
    done = run_here(f"run={trained[1]}", "from_scratch=true", script="verify")
    assert done.stdout.splitlines()[-1] == "verified", done.stderr


def test_it_is_a_teacher_and_a_student(trained, text, tmp_path):
    name, folder = trained
    distill = ["trainer=distill", f"trainer.teachers=[{folder}]", "seed=1"]
    done = train(tmp_path, *model_of(name), *text, *SHORT, *distill)
    assert f"teacher: {folder}" in done.stderr
    curve = load_named("last", tmp_path).state["history"].curve
    divergences = [metrics["train/kl"] for _, metrics in curve if "train/kl" in metrics]
    assert min(divergences) > 0


def test_the_cache_gives_the_tokens_of_the_whole_row(trained):
    restored = restore_model(trained[1])
    backbone = restored.model.backbone
    tokens = restored.encoder.tokenizer.encode("abc", special=False)
    cache, cached = backbone.new_cache([0]), tokens
    for _ in range(8):
        new = cached if cached is tokens else cached[-1:]
        cached = [*cached, int(mx.argmax(backbone.extend(mx.array([new]), cache)[0, -1]).item())]
        row = mx.array([cached[:-1]])
        logits = restored.model(row, mx.ones(row.shape, mx.bool_))
        assert cached[-1] == int(mx.argmax(logits[0, -1]).item())
    args = [f"run={trained[1]}", "prompt=abc", "max_tokens=8", "temperature=0"]
    assert succeed_here(*args, script="generate").stdout.startswith("abc")


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_are_trained_resumed_and_merged(name, text, tmp_path):
    overrides = [*model_of(name), *text, *LORA, "trainer.eval_every=2", "trainer/schedule=constant"]
    whole = train(tmp_path / "whole", *overrides, "trainer.max_steps=4")
    train(tmp_path / "half", *overrides, "trainer.max_steps=2")
    resumed = train(tmp_path / "half", *overrides, "trainer.max_steps=4", "resume=auto")
    assert "resumed from step-00000002" in resumed.stderr
    assert final_state(resumed) == final_state(whole)
    restored = restore_model(tmp_path / "whole")
    succeed_here("hf", f"run={tmp_path}/whole", f"out={tmp_path}/hf", script="export")
    merged, _ = load_model(tmp_path / "hf")
    tokens = mx.array(np.arange(12).reshape(2, 6) % restored.checkpoint.state["vocab_size"])
    expected = restored.model(tokens, mx.ones(tokens.shape, mx.bool_))
    np.testing.assert_allclose(np.array(merged(tokens)), np.array(expected), atol=1e-5)


def test_adapters_are_inserted_by_a_growth_schedule(text, tmp_path):
    operations = "callbacks.growth.operations=[{id: a, op: set_lora, rank: 2, when: {or_steps: 2}}]"
    train(tmp_path, *model_of("mamba"), *text, *SHORT, operations)
    names = named_parameters(restore_model(tmp_path, "last").model)
    assert any(path.endswith("lora_b") for path in names)


def test_adapters_are_trained_on_quantised_weights(text, tmp_path):
    adapter = ["model/adapter=qlora", "model.quantization.group_size=32"]
    train(tmp_path, *model_of("llama"), *text, *SHORT, *adapter)
    arrays = named_parameters(restore_model(tmp_path).model)
    assert arrays["backbone.model.model.layers.0.self_attn.q_proj.base.weight"].dtype == mx.uint32
    done = run_here(f"run={tmp_path}", "from_scratch=true", script="verify")
    assert done.stdout.splitlines()[-1] == "verified", done.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_a_classifier_is_trained_and_predicts(name, tmp_path):
    train(tmp_path / "run", *model_of(name), "data=titanic", *TITANIC, *SHORT)
    output = tmp_path / "out.csv"
    succeed_here(f"run={tmp_path}/run", "input=test", f"output={output}", script="predict")
    rows = list(csv.DictReader(output.read_text().splitlines()))
    sums = [sum(float(row[key]) for key in row if key.startswith("probability_")) for row in rows]
    assert len(rows) == 418
    np.testing.assert_allclose(sums, 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "overrides", "message"),
    [
        ({"model_type": "llma"}, [], "no architecture 'llma'"),
        ({"num_hidden_layer": 2}, [], "no num_hidden_layer; did you mean num_hidden_layers?"),
        ({}, [f"callbacks.growth.operations={STACK}"], "the model has no key 'num_layers'"),
        ({}, ["model.config=3"], "model.config=3: "),
    ],
)
def test_what_does_not_fit_such_a_model_is_one_line_before_the_run(
    change, overrides, message, text, tmp_path
):
    args = [*model_of("llama", **change), *text, *SHORT, *overrides]
    done = run_here(*args, f"hydra.run.dir={tmp_path}/run")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
