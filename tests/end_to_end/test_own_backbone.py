"""A user's own backbone: a class with the protocol's members, an option file, and `model/size=none`."""

import json
import shutil

import pytest

from mlxlab.data.titanic.dataset import FOLDER
from support.processes import TINY, passed, run

CODE = '''
"""A bag of words: the mean of the embeddings of a document."""

import mlx.core as mx
import mlx.nn as nn


class BagOfWords(nn.Module):
    """Tokens (B, T) -> states (B, T, D)."""

    causal = False
    separates_documents = True
    classifier_hidden_size = 0
    position_limit = None

    def __init__(self, dimensions: int, context: int = 128, *, vocab_size: int) -> None:
        super().__init__()
        self.hidden_size = self.output_size = self.pooled_size = dimensions
        self.max_position_embeddings = context
        self.embedding = nn.Embedding(vocab_size, dimensions)
        self.mix = nn.Linear(dimensions, dimensions)

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        x = self.embedding(tokens)
        documents = mask.astype(mx.int32)
        same = (documents[:, :, None] == documents[:, None, :]) & (documents > 0)[:, None]
        weights = same / mx.maximum(same.sum(axis=-1, keepdims=True), 1)
        return x + self.mix(weights @ x)

    def pool(self, x: mx.array, mask: mx.array) -> mx.array:
        real = (mask > 0)[..., None]
        return (x * real).sum(axis=1) / mx.maximum(real.sum(axis=1), 1)

    def remove_pooler(self) -> None:
        """Pooling has no parameters."""


class Unfinished(nn.Module):
    def __init__(self, *, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, 8)
'''
ALLOWED = "my_models.BagOfWords,my_models.Unfinished"


@pytest.fixture
def own(tmp_path):
    """Runs a script with the user's module and config folder."""
    (tmp_path / "my_models.py").write_text(CODE)
    folder = tmp_path / "my_conf" / "model"
    folder.mkdir(parents=True)
    (folder / "bag.yaml").write_text(
        "# A bag of words\n_target_: my_models.BagOfWords\ndimensions: 16\n"
    )
    (folder / "unfinished.yaml").write_text(
        "# Lacks nearly everything\n_target_: my_models.Unfinished\n"
    )

    def call(*args, script="train"):
        settings = [
            setting
            for setting in TINY
            if not setting.startswith(("model.", "trainer.", "data.baselines"))
        ]
        if script == "train":
            args = (
                "--config-dir",
                str(tmp_path / "my_conf"),
                *settings,
                "trainer.max_steps=4",
                *args,
            )
        return run(*args, script=script, PYTHONPATH=str(tmp_path), MLXLAB_ALLOWED_TARGETS=ALLOWED)

    return call


def test_an_own_backbone_is_trained_and_evaluated_as_a_classifier(own, tmp_path):
    passed(own("model=bag", "data.source=synthetic", f"hydra.run.dir={tmp_path}/run"))
    shutil.copyfile(FOLDER / "titanic.csv", tmp_path / "rows.csv")
    judged = passed(
        own(f"run={tmp_path}/run", f"data.source={tmp_path}/rows.csv", script="evaluate")
    )
    assert "accuracy" in judged.stdout + judged.stderr


def test_an_own_backbone_is_trained_as_a_masked_language_model(own, tmp_path):
    text = tmp_path / "text.jsonl"
    text.write_text(
        "\n".join(
            json.dumps({"text": f"{n} fish {n + 1} fish red fish blue fish"}) for n in range(300)
        )
    )
    args = ["data=streaming", f"data.source={text}", "data.tokenizer.vocab_size=270"]
    args += ["data.seq_len=16", "data.valid_fraction=0.1"]
    passed(own("model=bag", "model/size=none", *args, f"hydra.run.dir={tmp_path}/run"))


def test_a_backbone_that_lacks_members_is_refused_by_their_names(own, tmp_path):
    done = own(
        "model=unfinished",
        "model/size=none",
        "data.source=synthetic",
        f"hydra.run.dir={tmp_path}/run",
    )
    assert done.returncode == 2
    assert "my_models.Unfinished: not a backbone, it has no causal, hidden_size" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_size_preset_does_not_fit_an_own_backbone(own):
    done = own("model=bag", "model/size=nano", "data.source=synthetic")
    assert done.returncode == 2
    assert "num_heads" in done.stderr
