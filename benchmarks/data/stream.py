"""Text data sets for benchmarks of the loader: data=streaming with a byte-level BPE tokenizer of 8,192 tokens."""

from pathlib import Path
from typing import Any

from benchmarks.config import read_config
from mlxlab.config.instantiate import instantiate
from mlxlab.data.text.dataset import StreamingTextDataset

VOCABULARY = 8192


def make_stream(
    source: str, cache: Path, masked: bool = False, pretrained: Path | None = None, **changes: Any
) -> StreamingTextDataset:
    """The data set of a source for a nano model; `pretrained` is the folder of its tokenizer (None trains one)."""
    tokenizer = read_config("data/tokenizer/bpe") | {"vocab_size": VOCABULARY}
    node = read_config("data/streaming") | {
        "order": read_config("data/order/shuffle"),
        "tokenizer": tokenizer,
    }
    node = override(node, {"source": source} | changes)
    runtime = {"seed": 0, "cache": cache, "masked": masked, "parameters": 1_574_528, "width": 128}
    data: StreamingTextDataset = instantiate(node, **runtime, pretrained=pretrained)
    return data


def override(node: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`node` with the values of some dotted keys changed, as on the command line."""
    result = dict(node)
    for key, value in changes.items():
        name, _, subkey = key.partition(".")
        result[name] = override(result[name], {subkey: value}) if subkey else value
    return result
