"""The decoder in plain, idiomatic PyTorch: the reference of the benchmarks.

Only these benchmarks need PyTorch; it is no dependency.
"""

from importlib.util import find_spec
from typing import Any

from mlxlab.errors import ServiceUnavailableError


def torch_module() -> Any:
    """Imports torch.

    Raises:
        ServiceUnavailableError: PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise ServiceUnavailableError(
            "compare_with=torch: PyTorch is not installed; run: pip install torch (on Linux the CPU build)"
        )
    import torch

    return torch


def torch_decoder(mlx_model: Any) -> Any:
    """A torch module with the shape and the weights of an mlxlab decoder with its tied causal head.

    (B, T) tokens -> (B, T, V) logits. LayerNorm with learned positions, or RMSNorm with rotary ones; GELU or SwiGLU.
    """
    torch = torch_module()
    from mlx.utils import tree_flatten

    leaves: Any = tree_flatten(mlx_model.backbone.parameters())
    weights = {path: torch.from_numpy(_numpy(leaf)) for path, leaf in leaves}
    first = mlx_model.backbone.layers[0].attention
    model = _decoder_class()(
        weights, len(mlx_model.backbone.layers), first.head_dim, first.rope_theta
    )
    model.load_state_dict({path.replace(".", "_"): leaf for path, leaf in weights.items()})
    return model


def _numpy(leaf: Any) -> Any:
    import numpy as np

    return np.array(leaf)


def _decoder_class() -> Any:
    """Defined in a function, so that torch is imported only if it is used."""
    torch: Any = torch_module()
    functional = torch.nn.functional

    class Decoder(torch.nn.Module):
        def __init__(
            self, weights: dict[str, Any], layers: int, head: int, rope_theta: float | None
        ) -> None:
            super().__init__()
            for path, leaf in weights.items():
                self.register_parameter(path.replace(".", "_"), torch.nn.Parameter(leaf.clone()))
            self.layers, self.head, self.rope_theta = layers, head, rope_theta

        def forward(self, tokens: Any) -> Any:
            x = functional.embedding(tokens, self.embedding_weight)  # (B, T, D)
            if self.rope_theta is None:
                x = x + self.position_embedding_weight[: tokens.shape[1]]
            for layer in range(self.layers):
                x = x + self.attend(
                    self.norm_of(x, f"layers_{layer}_attention_norm"), f"layers_{layer}_attention"
                )
                x = x + self.feed(
                    self.norm_of(x, f"layers_{layer}_feed_forward_norm"),
                    f"layers_{layer}_feed_forward",
                )
            return self.norm_of(x, "norm") @ self.embedding_weight.T

        def linear(self, x: Any, name: str) -> Any:
            return functional.linear(x, getattr(self, f"{name}_weight"))

        def norm_of(self, x: Any, name: str) -> Any:
            weight = getattr(self, f"{name}_weight")
            norm = functional.layer_norm if self.rope_theta is None else functional.rms_norm
            return norm(x, (x.shape[-1],), weight, eps=1e-5)

        def attend(self, x: Any, name: str) -> Any:
            B, T, D = x.shape
            q, k, v = (
                self.linear(x, f"{name}_{projection}").view(B, T, -1, self.head).transpose(1, 2)
                for projection in ("query", "key", "value")
            )  # (B, H, T, D / H)
            if self.rope_theta is not None:
                q, k = self.rotate(q), self.rotate(k)
            x = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.linear(x.transpose(1, 2).reshape(B, T, D), f"{name}_out")

        def rotate(self, x: Any) -> Any:
            half = self.head // 2
            rates = self.rope_theta ** (-torch.arange(half, device=x.device) / half)
            angles = torch.arange(x.shape[2], device=x.device)[:, None] * rates  # (T, D / 2H)
            a, b = x[..., :half], x[..., half:]
            return torch.cat(
                [a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1
            )

        def feed(self, x: Any, name: str) -> Any:
            up = self.linear(x, f"{name}_up")
            gated = hasattr(self, f"{name}_gate_weight")
            up = (
                functional.silu(self.linear(x, f"{name}_gate")) * up
                if gated
                else functional.gelu(up)
            )
            return self.linear(up, f"{name}_down")

    return Decoder
