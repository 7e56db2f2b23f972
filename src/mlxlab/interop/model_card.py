"""The model card of an exported model: what it is, how good it is, what it was made from, and how to load it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlxlab.interop.base_model import BaseModel
from mlxlab.interop.counterpart import Counterpart, Ending
from mlxlab.markdown import markdown_table
from mlxlab.redact import redact

Command = tuple[str, Sequence[str]]  # a comment, such as `continued at step 50`, and the overrides


@dataclass(frozen=True)
class Origin:
    """What a model was made from.

    Args:
        name: of the run.
        data: where it came from, and the option of the config.
        commands: of the command line that began its run, and of those that continued it.
        hashes: by what they identify.
        metrics: of the exported weights.
        bases: published weights that it started from.
        pretrained: by which mlxlab loads them, where nothing else was its start.
    """

    name: str
    data: str
    step: int
    commands: Sequence[Command] = (("", ()),)
    hashes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    bases: tuple[BaseModel, ...] = ()
    pretrained: str | None = None


PIPELINES: dict[Ending, str] = {  # -> task of a hub
    "ForCausalLM": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
}
TRANSFORMERS, MLX_LM, PEFT = "transformers", "mlx", "peft"  # libraries, as a hub names them


def model_card(
    origin: Origin,
    counterpart: Counterpart,
    parameters: int,
    notes: list[str],
    libraries: Sequence[str],
    adapters: str | None = None,
    base: str | None = None,
    *,
    chats: bool = False,
    below_adapters: str = "",
) -> str:
    """Markdown with the header that model hubs read.

    Args:
        libraries: that load the model; it is listed under the first.
        adapters: the folder of the adapters that are not in the weights.
        base: arguments by which transformers loads the base model, where the card is that of adapters for it.
        chats: whether the tokenizer has a chat template, by which the examples write their prompt.
        below_adapters: what the weights are, where they are those below the adapters, without them.
    """
    metrics = [[name, f"{value:.6g}"] for name, value in sorted(origin.metrics.items())]
    hashes = [[name, f"`{value}`"] for name, value in origin.hashes.items() if value]
    steps = f"{origin.step} step{'s' * (origin.step != 1)}"
    commands = "\n".join(line for each in origin.commands for line in _command_lines(*each))
    heading = "## Metrics" + " with the adapters" * bool(adapters or base)
    subject = f"Adapters for {counterpart.name}," if base else counterpart.name
    size, training = f"{parameters:,} parameters", f"{steps} on {redact(origin.data)}"
    is_base = bool(below_adapters) and adapters is None
    blocks = [
        "\n".join(["---", *_header(origin, PIPELINES[counterpart.ending], libraries[0]), "---"]),
        f"# {'Base model of ' * is_base}{origin.name}",
        f"{subject} with {size}: {below_adapters}. Adapters for them were trained by mlxlab: {training}."
        if below_adapters
        else f"{subject} with {size}, trained by mlxlab: {training}.",
        *(
            f"Its first weights are those of {base.name}: {_license(base)}."
            for base in origin.bases
        ),
        *notes,
        "## Use",
        *(
            _usage(f"AutoModel{counterpart.ending}", library, adapters, base, chats)
            for library in libraries
        ),
        *([heading, markdown_table(["metric", "value"], metrics)] if metrics else []),
        "## Origin",
        *(
            ["These commands trained the adapters, not the weights in this folder."]
            if is_base
            else []
        ),
        f"```bash\n{commands}\n```",
        markdown_table(["of", "hash"], hashes),
    ]
    return "\n\n".join(blocks) + "\n"


def _command_lines(comment: str, overrides: Sequence[str]) -> list[str]:
    return [
        *([f"# {comment}"] if comment else []),
        shlex.join(["mlxlab", "train", *map(redact, overrides)]),
    ]


def _header(origin: Origin, pipeline: str, library: str) -> list[str]:
    published = [base.name for base in origin.bases if base.is_hub_id]
    licenses = {base.license for base in origin.bases}
    return [
        *(f"license: {name}" for name in licenses if name and len(licenses) == 1),
        *(["base_model:", *(f"- {name}" for name in published)] if published else []),
        f"library_name: {library}",
        f"pipeline_tag: {pipeline}",
        "tags:\n- mlxlab",
    ]


def _license(base: BaseModel) -> str:
    return (
        f"license {base.license}"
        if base.license
        else "its license applies, which its files do not name"
    )


def _usage(loader: str, library: str, adapters: str | None, base: str | None, chats: bool) -> str:
    messages = ['messages = [{"role": "user", "content": "Hello"}]'] if chats else []
    generate = [
        'tensors = {"return_dict": True, "return_tensors": "pt"}',
        "inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **tensors)",
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=100)[0]))",
    ]
    chat = [*messages, *generate] if chats else []
    peft = [
        "from peft import PeftModel",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f"base = {loader}.from_pretrained({base})",
        'model, tokenizer = PeftModel.from_pretrained(base, "."), AutoTokenizer.from_pretrained(".")',
        *chat,
    ]
    transformers = [
        f"from transformers import {loader}, AutoTokenizer",
        "",
        f'model, tokenizer = {loader}.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        *chat,
    ]
    path = f', adapter_path="{adapters}"' if adapters else ""
    mlx_lm = [
        "import mlx_lm",
        "",
        f'model, tokenizer = mlx_lm.load("."{path})',
        *messages,
        f"prompt = {'tokenizer.apply_chat_template(messages, add_generation_prompt=True)' if chats else repr('Once')}",
        "print(mlx_lm.generate(model, tokenizer, prompt))",
    ]
    lines = {TRANSFORMERS: transformers, MLX_LM: mlx_lm, PEFT: peft}[library]
    return "\n".join(["```python", *lines, "```"])
