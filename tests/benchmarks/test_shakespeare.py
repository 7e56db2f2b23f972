"""The PyTorch decoder of the benchmarks computes the same function as mlxlab's."""

import mlx.core as mx
import numpy as np
import pytest
from benchmarks.steps import torch_decoder

from mlxlab.models.model import Model, build_head
from mlxlab.models.transformer import Transformer

GPT = {"norm_type": "layer", "mlp_type": "gelu", "position_embedding": "learned"}
LLAMA = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}


@pytest.mark.parametrize("style", [GPT, LLAMA], ids=["gpt", "llama"])
def test_the_pytorch_decoder_gives_the_same_logits(style):
    torch = pytest.importorskip("torch", reason="only benchmarks need it: pip install torch")
    mx.random.seed(0)
    sizes = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": None}
    sizes |= {"intermediate_size": 48, "max_position_embeddings": 16, "vocab_size": 50}
    fixed = {"rope_theta": 10000.0, "tie_embeddings": True, "dropout": 0.0}
    backbone = Transformer(**sizes, **style, **fixed)
    model = Model(backbone, build_head(backbone, kind="language_modelling"))
    tokens = np.random.default_rng(0).integers(0, 50, (3, 16))
    expected = np.array(model(mx.array(tokens), mx.ones(tokens.shape, mx.bool_)))
    logits = torch_decoder.torch_decoder(model)(torch.from_numpy(tokens)).detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
