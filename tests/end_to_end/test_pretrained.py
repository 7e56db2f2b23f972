"""A pretrained model through the whole program: fine-tuned, resumed, restored, without its folder."""

import json
import shutil

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.inference.restore import restore_model
from mlxlab.models.bert import Bert
from support.processes import succeed_here, tiny_overrides

CONFIG = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIG |= {"intermediate_size": 24, "max_position_embeddings": 128, "vocab_size": 300}
NAMES = {"embedding.": "embeddings.word_embeddings."}
NAMES |= {"type_embedding.": "embeddings.token_type_embeddings."}
NAMES |= {"position_embedding.": "embeddings.position_embeddings."}
NAMES |= {"embedding_norm.": "embeddings.LayerNorm.", "pooler.": "pooler.dense."}
INNER = {"attention.query": "attention.self.query", "attention.key": "attention.self.key"}
INNER |= {"attention.value": "attention.self.value", "attention.out": "attention.output.dense"}
INNER |= {"attention_norm": "attention.output.LayerNorm", "feed_forward.up": "intermediate.dense"}
INNER |= {"feed_forward.down": "output.dense", "feed_forward_norm": "output.LayerNorm"}


def published_name(path: str) -> str:
    if path.startswith("layers."):
        _, number, name = path.split(".", 2)
        inner, _, kind = name.rpartition(".")
        return f"encoder.layer.{number}.{INNER[inner]}.{kind}"
    own_prefix = next(name for name in NAMES if path.startswith(name))
    return path.replace(own_prefix, NAMES[own_prefix], 1)


def write(folder):
    folder.mkdir()
    mx.random.seed(0)
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 24}
    sizes |= {"max_position_embeddings": 128, "vocab_size": 300}
    weights = {
        published_name(path): leaf for path, leaf in tree_flatten(Bert(**sizes).parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    train_bpe(["a passenger of the third class", "a lady of the first class"], 300, 1).save(folder)
    return weights


def test_a_pretrained_model_is_fine_tuned_resumed_and_restored_without_its_folder(tmp_path):
    weights = write(tmp_path / "published")
    tiny = tiny_overrides("trainer.max_steps=4", "trainer.eval_every=2")
    settings = [item for item in tiny if not item.startswith("model")]
    settings += [f"hydra.run.dir={tmp_path}/run", "resume=auto", "trainer.learning_rate=1e-9"]
    succeed_here(*settings, f"model.pretrained={tmp_path}/published")
    shutil.rmtree(tmp_path / "published")
    again = succeed_here(*settings, "trainer.max_steps=6")
    assert "resumed from step-00000004" in again.stderr
    model = restore_model(tmp_path / "run").model
    table = np.array(model.backbone.embedding.weight)
    expected = np.array(weights["embeddings.word_embeddings.weight"])
    np.testing.assert_allclose(table, expected, atol=1e-6)
