"""What loaders are measured on: data=streaming as shipped, with byte-level BPE at 8,192."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir
from mlxlab.data.text.dataset import StreamingTextDataset

VOCABULARY = 8192


def new_stream(
    source: str, cache: Path, masked: bool = False, pretrained: Path | None = None, **changes: Any
) -> StreamingTextDataset:
    """The data set of a source, as for a model of size nano, with the tokenizer of a folder or a new one."""
    node = read("data/streaming") | {"tokenizer": read("data/tokenizer/bpe") | {"vocab_size": VOCABULARY}}
    node = override(node, {"source": source} | changes)
    runtime = {"seed": 0, "cache": cache, "masked": masked, "parameters": 1_574_528, "width": 128}
    data: StreamingTextDataset = instantiate(node, **runtime, pretrained=pretrained)
    return data


def override(node: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`node` with the values of some dotted keys changed, as on the command line."""
    result = dict(node)
    for key, value in changes.items():
        name, _, rest = key.partition(".")
        result[name] = override(result[name], {rest: value}) if rest else value
    return result


def read(option: str) -> dict[str, Any]:
    """A file of `conf/`, without its defaults list."""
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{option}.yaml"), resolve=False)
    return {key: value for key, value in node.items() if key != "defaults"}
