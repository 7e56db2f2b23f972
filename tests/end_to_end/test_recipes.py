"""The experiments that stand for recipes of older programs train, on small data with tiny models."""

import json

import pytest

from support.processes import NO_PLOTS, succeed_here

SMALL = [*NO_PLOTS, "tracking=none", "trainer.max_steps=1", "trainer.eval_every=1"]
SMALL += ["trainer.eval_batches=1", "trainer.schedule.warmup=0", "data.prefetch=0"]
SMALL += ["data.seq_len=16"]
SHAPE = ["model.num_layers=1", "model.hidden_size=16", "model.num_heads=2"]
SHAPE += ["model.intermediate_size=16"]


@pytest.fixture
def text(tmp_path):
    records = [json.dumps({"text": f"Number {n} follows {n - 1}."}) for n in range(300)]
    (tmp_path / "books.jsonl").write_text("\n".join(records) + "\n")
    return [f"data.source={tmp_path}/books.jsonl", "data.tokenizer.vocab_size=300"]


@pytest.mark.fault_injection
@pytest.mark.parametrize("experiment", ["quick", "standard", "production"])
def test_a_recipe_for_rows_trains(experiment, tmp_path):
    overrides = ["data.source=synthetic", "data.baselines=false", "data.augment.copies=1"]
    done = succeed_here(
        f"experiment={experiment}", *SMALL, *SHAPE, *overrides, f"hydra.run.dir={tmp_path}/run"
    )
    assert "final_state=" in done.stdout


@pytest.mark.fault_injection
@pytest.mark.parametrize("experiment", ["limited_memory", "quality", "rapid", "cloud"])
def test_a_recipe_for_text_trains(experiment, text, tmp_path):
    overrides = [f"hydra.run.dir={tmp_path}/run"]
    if experiment == "cloud":
        overrides += ["cloud=directory", f"cloud.path={tmp_path}/store"]
    done = succeed_here(f"experiment={experiment}", *SMALL, *SHAPE, *text, *overrides)
    assert "final_state=" in done.stdout


def test_the_growth_course_grows_a_decoder_to_size_nano(text):
    done = succeed_here("experiment=growth_course", *text, "--dry-run")
    assert "map=[0, 0, 0, 1, 1, 2]" in done.stdout
