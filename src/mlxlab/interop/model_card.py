"""The model card of an exported model: what it is, how good it is, what it was made from, and how to load it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlxlab.markdown import markdown_table
from mlxlab.redact import redact


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Args:
        name: of the run.
        command: the overrides of its command line.
        hashes: by what they identify.
        metrics: of the exported weights.
    """

    name: str
    data: str
    step: int
    command: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


USES = {  # ending of the class in transformers -> task of a hub
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
}


def model_card(origin: Origin, architecture: str, parameters: int, notes: list[str], quantised: bool = False) -> str:
    """Markdown with the header that model hubs read."""
    ending = next(ending for ending in USES if architecture.endswith(ending))
    pipeline, loader = USES[ending], f"AutoModel{ending}"
    library = "mlx" if quantised else "transformers"
    metrics = [[name, f"{value:.6g}"] for name, value in sorted(origin.metrics.items())]
    hashes = [[name, f"`{value}`"] for name, value in origin.hashes.items() if value]
    command = shlex.join(["scripts/train.py", *map(redact, origin.command)])
    blocks = [
        f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags:\n- mlxlab\n---",
        f"# {origin.name}",
        f"{architecture} with {parameters:,} parameters, trained for {origin.step} steps on {origin.data} with mlxlab.",
        *notes,
        "## Use",
        _usage(loader, quantised),
        *(["## Metrics", markdown_table(["metric", "value"], metrics)] if metrics else []),
        "## Origin",
        f"```bash\n{command}\n```",
        markdown_table(["of", "hash"], hashes),
    ]
    return "\n\n".join(blocks) + "\n"


def _usage(loader: str, quantised: bool) -> str:
    transformers = [
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f'model, tokenizer = {loader}.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
    ]
    mlx_lm = ["import mlx_lm", "", 'model, tokenizer = mlx_lm.load(".")', 'mlx_lm.generate(model, tokenizer, "Once")']
    programs = [] if quantised else [transformers]
    programs += [mlx_lm] if loader == "AutoModelForCausalLM" else []
    return "\n\n".join("```python\n" + "\n".join(lines) + "\n```" for lines in programs)
