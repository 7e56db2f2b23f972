"""A Llama from a GGUF file through the whole program: tuned on streamed text, resumed without the file, generating."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from end_to_end.test_streaming import SMALL
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.inference.text_generator import load_generator
from mlxlab.models.build import build_model
from models.test_llama import write
from support.exported import LLAMA
from support.processes import run_here, succeed_here


def test_a_gguf_model_is_fine_tuned_resumed_without_the_file_and_generates(tmp_path):
    tokenizer = train_bpe(["Line 3 tells of 9 sheep and 3 dogs"] * 3, 300, 1)
    model = build_model(LLAMA, kind="language_modelling", vocab_size=tokenizer.vocab_size, seed=2)
    model.update(tree_map(lambda w: w + 0.2 * mx.random.normal(w.shape), model.parameters()))
    context = {"llama.context_length": mx.array(40)}
    file = write(tmp_path / "small.gguf", model, tokenizer, context)
    lines = [json.dumps({"text": f"Line {n} tells of {n * n} sheep. " * 4}) for n in range(40)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    omitted = ("model.", "trainer.max", "trainer.eval", "trainer.lear")
    settings = [name for name in SMALL if not name.startswith(omitted)]
    settings += ["model=transformer", "trainer.learning_rate=1e-9", "trainer.eval_every=3"]
    settings += [
        "resume=auto",
        f"data.source={tmp_path}/text.jsonl",
        f"hydra.run.dir={tmp_path}/run",
    ]
    succeed_here(*settings, f"model.pretrained={file}", "trainer.max_steps=3")
    sources = ([], [f"pretrained={file}"])
    of_run, of_file = (
        run_here(f"run={tmp_path}/run", *each, "--json", script="evaluate") for each in sources
    )
    assert of_file.returncode == 0, of_file.stderr
    metrics, published = (json.loads(done.stdout)["metrics"] for done in (of_run, of_file))
    assert published == pytest.approx(metrics, rel=1e-4)  # the learning rate changes nothing
    assert published != metrics
    file.unlink()
    again = succeed_here(*settings, "trainer.max_steps=6")
    assert "resumed from step-00000003" in again.stderr
    writer = load_generator(tmp_path / "run")
    weights = np.array(model.backbone.embedding.weight)
    np.testing.assert_allclose(np.array(writer.model.backbone.embedding.weight), weights, atol=1e-6)
    expected = tokenizer.encode("sheep", special=False)
    assert writer.tokenizer.encode("sheep", special=False) == expected
    assert writer.context == 40, "the positions of the pretrained model"
    prompt = ["prompt=Line 3 tells", "max_tokens=4"]
    continued = succeed_here(f"run={tmp_path}/run", *prompt, script="generate")
    assert continued.stdout.startswith("Line 3 tells")
