"""Any architecture of mlx-lm as a backbone (Apple's collection of published language models)."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.data.batch import TaskKind
from mlxlab.errors import ConfigError
from mlxlab.models.layers import last_states
from mlxlab.models.zoo.architectures import CONTEXT_KEYS, new_model, text_value
from mlxlab.schema.constraints import Share

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
ConfigJson = dict[
    str, Json
]  # the contents of a config.json; any value passes the check of the config
DEFAULT_CONTEXT = 2048  # tokens, where the config names no length
POSITIONS = (
    "wpe",
    "embed_positions",
    "position_embeddings",
)  # names of tables of learned positions
TITLE = "model.config"


class MlxLm(nn.Module):
    """A decoder of mlx-lm: tokens (B, T) -> logits (B, T, V), or for other tasks its last states (B, T, D).

    Such models have no mask between documents, so a row holds one document, padded on the right: what precedes the
    padding does not depend on it, also in a recurrent layer. The parameters are those of mlx-lm, below `model`.

    Args:
        config: the contents of a config.json, `model_type` and sizes; null is that of `pretrained`.
        dropout: fraction of the inputs of a classifier that are dropped in training; the backbone itself has none.
    """

    causal = True
    separates_documents = False
    classifier_hidden_size = 0
    tie_embeddings = None  # the states of a language model are its logits

    def __init__(
        self,
        config: ConfigJson | None = None,
        dropout: Share = 0.0,
        *,
        vocab_size: int,
        kind: TaskKind = "language_modelling",
    ) -> None:
        super().__init__()
        if not isinstance(config, dict):
            raise ConfigError(
                f"{TITLE}: expected the keys of a config.json, or model.pretrained=<folder or hub id>"
            )
        self.model = new_model(config, vocab_size, TITLE)
        self._embedding_path = _embedding_path(self.model, vocab_size, str(config["model_type"]))
        self._trunk_path = self._embedding_path.rpartition(".")[0]
        self.hidden_size = self.pooled_size = self.embedding.weight.shape[1]
        self.returns_logits = kind == "language_modelling"
        self.output_size = vocab_size
        self.max_position_embeddings = text_value(config, *CONTEXT_KEYS) or DEFAULT_CONTEXT
        self.position_limit = _position_limit(self.model)
        if not self.returns_logits:
            self.output_size = self.hidden_size
            _remove_output_layer(self.model, self._trunk_path, str(config["model_type"]))

    @property
    def embedding(self) -> nn.Embedding:
        return _submodule(self.model, self._embedding_path)

    def __call__(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        del segment_ids  # one document per row, and what follows a token does not change it
        if self.returns_logits:
            return self.model(tokens)
        return _submodule(self.model, self._trunk_path)(tokens, cache=None)

    def sanitize(self, arrays: dict[str, mx.array]) -> dict[str, mx.array]:
        """Published arrays by the names, and in the layout, of the parameters of `model`."""
        if callable(getattr(type(self.model), "sanitize", None)):
            return self.model.sanitize(arrays)
        return arrays

    def new_cache(self, padding: list[int]) -> "RowCaches":
        """An empty cache for rows that begin with these numbers of padding tokens."""
        return RowCaches(self.model, padding)

    def extend(self, tokens: mx.array, cache: "RowCaches") -> mx.array:
        """The next tokens (B, T) -> logits (B, T, V), row by row: zeros at padding on the left."""
        rows = []
        for row, (padding, layers) in enumerate(zip(cache.padding, cache.rows, strict=True)):
            skipped = max(0, padding - cache.length)
            logits = self.model(tokens[row : row + 1, skipped:], cache=layers)
            rows.append(mx.pad(logits, [(0, 0), (skipped, 0), (0, 0)]))
        cache.length += tokens.shape[1]
        return mx.concatenate(rows)

    def pool(self, x: mx.array, segment_ids: mx.array) -> mx.array:
        """The state of the last real token of each row: (B, T, D) -> (B, D)."""
        return last_states(x, segment_ids)

    def remove_pooler(self) -> None:
        """Does nothing: `pool` has no parameters."""


class RowCaches:
    """The caches of mlx-lm for each row by itself: recurrent states know no padding. `length` as in `KVCache`."""

    def __init__(self, model: nn.Module, padding: list[int]) -> None:
        from mlx_lm.models.cache import make_prompt_cache

        self.length = 0
        self.padding = padding
        self.rows: list[Any] = [make_prompt_cache(model) for _ in padding]

    def keep(self, rows: list[int]) -> None:
        """Removes all rows but these."""
        self.padding = [self.padding[row] for row in rows]
        self.rows = [self.rows[row] for row in rows]


def _embedding_path(model: nn.Module, vocab_size: int, model_type: str) -> str:
    """The path of the token embedding: the outermost with a row for each token."""
    tables = [path for path, module in model.named_modules() if isinstance(module, nn.Embedding)]
    tables = [path for path in tables if _submodule(model, path).weight.shape[0] == vocab_size]
    if not tables:
        raise ConfigError(f"{TITLE}: {model_type} has no embedding of {vocab_size} tokens")
    return min(
        tables, key=lambda path: (path.count("."), path.rpartition(".")[2] in POSITIONS, path)
    )


def _position_limit(model: nn.Module) -> int | None:
    """The rows of the smallest table of learned positions; None where there is none."""
    tables = [
        table for path, table in model.named_modules() if path.rpartition(".")[2] in POSITIONS
    ]
    return min(
        (table.weight.shape[0] for table in tables if isinstance(table, nn.Embedding)), default=None
    )


def _remove_output_layer(model: nn.Module, trunk: str, model_type: str) -> None:
    """Deletes what a model has next to the trunk, the module that owns the token embedding."""
    if not trunk:
        raise ConfigError(
            f"{TITLE}: {model_type} has no states apart from its logits; expected a language model"
        )
    module = model
    for name in trunk.split("."):
        for other in [key for key in module.children() if key != name]:
            module.pop(other)
        for other in [key for key, value in module.items() if isinstance(value, mx.array)]:
            module.pop(other)
        module = module[name]


def _submodule(module: nn.Module, path: str) -> Any:
    """The module at a dotted path; numbers are indices of lists."""
    inner: Any = module
    for name in path.split("."):
        if isinstance(inner, list):
            inner = inner[int(name)]
        else:
            inner = inner[name]
    return inner
