"""Runs with adapters for the tests of `export peft`, and their logits compared with those in PEFT."""

import json

import mlx.core as mx
import numpy as np

from mlxlab.inference.restore import restore_model
from support.commands import command
from support.processes import run_here, tiny_overrides

main = command("export")

SHORT = ["trainer.max_steps=20", "trainer.eval_every=20", "trainer.learning_rate=0.01"]
SHORT += ["model.adapter.alpha=64"]
TEXT = ["data=streaming", "data.seq_len=32", "data.tokenizer.vocab_size=400"]
SIZES = ("model.num_layers", "model.hidden_size", "model.num_heads", "model.intermediate_size")
WORDS = "the a cat dog tree house sees likes small green bird and with runs"


def write_text(folder):
    """The overrides of a language model of the text that is written into the folder."""
    path, rng = folder / "text.jsonl", np.random.default_rng(0)
    lines = [
        json.dumps({"text": " ".join(rng.choice(WORDS.split(), 30)) + "."}) for _ in range(300)
    ]
    path.write_text("\n".join(lines) + "\n")
    return [*TEXT, f"data.source={path}"]


def train(folder, *overrides, without=()):
    """A run of 20 steps, with adapters of large alpha unless `without` names the key."""
    unused = [*without, *(["data.baselines"] if "data=streaming" in overrides else [])]
    settings = [
        each for each in tiny_overrides(*overrides, *SHORT) if each.split("=")[0] not in unused
    ]
    done = run_here(*dict.fromkeys(settings), f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def train_without_adapters(folder, *overrides, without=()):
    return train(folder, *overrides, without=(*without, "model.adapter.alpha"))


def resume(folder, *overrides):
    again = ["resume=auto", "trainer.max_steps=40", "tracking=none"]
    done = run_here(f"hydra.run.dir={folder}", *again, *overrides)
    assert done.returncode == 0, done.stderr
    return folder


def export(run, out, *options):
    assert main(["peft", f"run={run}", f"out={out}", *options]) == 0
    return out


def base_of(out):
    """The base model that exported adapters name."""
    return json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]


def compare(run, out, loader, base, checkpoint="best", atol=1e-4, **options):
    """Logits of the run and of PEFT with the base model; those of that alone differ, and come back without adapters."""
    import peft
    import torch

    restored = restore_model(run, checkpoint)
    tokens = np.random.default_rng(1).integers(4, restored.encoder.tokenizer.vocab_size, (2, 12))
    mask = np.ones_like(tokens)
    mask[1, 8:] = 0
    tokens[1, 8:] = restored.encoder.tokenizer.pad_id
    expected = np.array(restored.model(mx.array(tokens), mx.array(mask)))
    inputs = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask)}
    real = mask > 0 if expected.shape[:2] == mask.shape else slice(None)
    model = loader.from_pretrained(base, **options).eval()
    with torch.no_grad():
        alone = model(**inputs).logits.numpy()[real]
    adapted = peft.PeftModel.from_pretrained(model, out).eval()
    with torch.no_grad():
        np.testing.assert_allclose(
            adapted(**inputs).logits.numpy()[real], expected[real], atol=atol
        )
        with adapted.disable_adapter():
            np.testing.assert_array_equal(adapted(**inputs).logits.numpy()[real], alone)
    assert np.abs(alone - expected[real]).max() > 1e-2, "the adapters change nothing"
