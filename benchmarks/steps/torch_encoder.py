"""BERT with its masked head in plain, idiomatic PyTorch."""

from typing import Any

from benchmarks.steps.torch_decoder import torch_module


def torch_encoder(mlx_model: Any) -> Any:
    """A torch module with the shape and the weights of a classic mlxlab BERT with a masked head.

    (B, T) tokens without padding -> (B, T, V) logits.
    """
    torch = torch_module()
    import numpy as np
    from mlx.utils import tree_flatten

    leaves: Any = tree_flatten(mlx_model.parameters())
    weights = {path.replace(".", "_"): torch.from_numpy(np.array(leaf)) for path, leaf in leaves}
    backbone = mlx_model.backbone
    model = _encoder_class()(
        weights, len(backbone.layers), backbone.layers[0].attention.head_dim, backbone.dropout.p
    )
    model.load_state_dict(weights)
    return model


def _encoder_class() -> Any:
    """Defined in a function, so that torch is imported only if it is used."""
    torch: Any = torch_module()
    functional = torch.nn.functional

    class Encoder(torch.nn.Module):
        def __init__(self, weights: dict[str, Any], layers: int, head: int, dropout: float) -> None:
            super().__init__()
            for path, leaf in weights.items():
                self.register_parameter(path, torch.nn.Parameter(leaf.clone()))
            self.layers, self.head, self.dropout = layers, head, dropout

        def forward(self, tokens: Any) -> Any:
            table = self.backbone_embedding_weight
            x = functional.embedding(tokens, table) + self.backbone_type_embedding_weight[0]
            x = x + self.backbone_position_embedding_weight[: tokens.shape[1]]
            x = self.drop(self.norm(x, "backbone_embedding_norm"))  # (B, T, D)
            for layer in range(self.layers):
                name = f"backbone_layers_{layer}"
                x = self.norm(
                    x + self.drop(self.attend(x, f"{name}_attention")), f"{name}_attention_norm"
                )
                hidden = functional.gelu(self.linear(x, f"{name}_feed_forward_up"))
                hidden = self.drop(self.linear(hidden, f"{name}_feed_forward_down"))
                x = self.norm(x + hidden, f"{name}_feed_forward_norm")
            x = self.norm(functional.gelu(self.linear(x, "head_transform")), "head_norm")
            return functional.linear(x, table, self.head_bias)

        def drop(self, x: Any) -> Any:
            return functional.dropout(x, self.dropout, self.training)

        def linear(self, x: Any, name: str) -> Any:
            return functional.linear(
                x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            )

        def norm(self, x: Any, name: str) -> Any:
            weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            return functional.layer_norm(x, (x.shape[-1],), weight, bias, eps=1e-12)

        def attend(self, x: Any, name: str) -> Any:
            B, T, D = x.shape
            q, k, v = (
                self.linear(x, f"{name}_{layer}").view(B, T, -1, self.head).transpose(1, 2)
                for layer in ("query", "key", "value")
            )  # (B, H, T, D / H)
            rate = self.dropout if self.training else 0.0
            x = functional.scaled_dot_product_attention(q, k, v, dropout_p=rate)
            return self.linear(x.transpose(1, 2).reshape(B, T, D), f"{name}_out")

    return Encoder
