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
    node = read("data/streaming") | {"source": source} | changes
    node["tokenizer"] = read("data/tokenizer/bpe") | {"vocab_size": VOCABULARY}
    runtime = {"seed": 0, "cache": cache, "masked": masked, "parameters": 1_574_528, "width": 128}
    data: StreamingTextDataset = instantiate(node, **runtime, pretrained=pretrained)
    return data


def read(option: str) -> dict[str, Any]:
    """A file of `conf/`, without its defaults list."""
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{option}.yaml"), resolve=False)
    return {key: value for key, value in node.items() if key != "defaults"}
