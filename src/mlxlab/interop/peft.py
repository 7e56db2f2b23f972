"""Writes the adapters of a trained model as a folder that Hugging Face's PEFT loads."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from mlxlab.errors import UserError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import read_json
from mlxlab.interop.counterpart import Counterpart, counterpart_of
from mlxlab.interop.hugging_face import model_folder, write_arrays, write_folder
from mlxlab.interop.model_card import PEFT, Origin, model_card
from mlxlab.interop.peft_adapters import peft_adapters
from mlxlab.interop.tokenizer_files import tokenizer_files
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.adapters.freeze import frozen_parameters
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.build import build_model
from mlxlab.models.pretrained.load import resolve

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BASE = "base"  # the folder of the base model
NO_BASE = (
    "Replace BASE by the folder of the base model: `mlxlab export peft` with `base=true` writes it."
)
MOVED = (
    "Run the lines below inside this folder; they work wherever it is. `AutoPeftModel` reads the path of `base/` from "
    "`adapter_config.json` (`base_model_name_or_path`) instead: after moving the folder, change it there."
)
DENSE = (
    "The adapters were trained on weights in few bits. On the published weights, which are not rounded, the outputs "
    "differ a little; `mlxlab export peft` with `base=true` writes the weights that the adapters were trained on."
)


def export_peft(
    trained: TrainedModel, out: Path, origin: Origin, published: str | None, base: bool = False
) -> bool:
    """Writes adapter_config.json, adapter_model.safetensors, tokenizer and README.md, as a whole or not at all.

    Args:
        out: the folder; it must not exist.
        published: the folder, GGUF file or hub id of the pretrained model that the run began with; None for none.
        base: write the weights below the adapters to `base/`, as transformers reads them.

    Returns:
        Whether adapter_config.json names the base model.

    Raises:
        ConfigError: transformers has no such model, or PEFT no such adapters.
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    counterpart = counterpart_of(trained)
    arrays, config = peft_adapters(trained, counterpart)
    source = (
        str(out.absolute() / BASE)
        if base
        else published and _same_model(published, trained, counterpart)
    )
    text = json.dumps({"base_model_name_or_path": source, **config}, indent=1) + "\n"
    files = {CONFIG: text, **tokenizer_files(trained)}
    quantised = any(isinstance(layer, QuantizedLayer) for _, layer in trained.model.named_modules())
    notes = [NO_BASE] * (source is None) + [MOVED] * base + [DENSE] * (quantised and not base)
    argument = _base_argument(
        BASE if base else source or "BASE", trained, counterpart, has_config=base
    )
    count = sum(array.size for array in arrays.values())
    of_base = replace(origin, metrics=None, hashes={})
    write_base = (
        model_folder(trained, of_base, dequantize=True, with_adapters=False) if base else None
    )

    def write(folder: Path) -> None:
        described = replace(
            origin, hashes={**origin.hashes, WEIGHTS: write_arrays(folder / WEIGHTS, arrays)}
        )
        chats = trained.template is not None
        card = model_card(described, counterpart, count, notes, (PEFT,), base=argument, chats=chats)
        for name, content in (files | {"README.md": card}).items():
            write_atomic(folder / name, content)
        if write_base is not None:
            (folder / BASE).mkdir()
            write_base(folder / BASE)

    write_folder(out, write)
    return source is not None


def _same_model(published: str, trained: TrainedModel, counterpart: Counterpart) -> str | None:
    """The name by which transformers loads the weights below the adapters, under their names; None if there is none."""
    try:
        folder = resolve(published)
        # Resolved: the files of a downloaded snapshot are symbolic links.
        file = (folder / "config.json").resolve()
        config = read_json(file, dict[str, object], keys=["model_type", "quantization"])
    except UserError:  # It is gone, or a GGUF file.
        return None
    # All decoders have the names of Llama, encoders have several; transformers does not read the codes of mlx-lm.
    same = trained.model.backbone.causal or config.get("model_type") == counterpart.model_type
    if not same or "quantization" in config or not _has_frozen_weights(str(folder), trained):
        return None
    is_folder = "/" not in published or folder == Path(os.path.expanduser(published))
    return str(folder.absolute()) if is_folder else published


def _has_frozen_weights(published: str, trained: TrainedModel) -> bool:
    """Whether a run that begins with a published model has the frozen weights of this one, which was resumed perhaps.

    Growth, other tokens, or training before the adapters change them, and so does who writes into the folder.
    """
    task = trained.task
    node = {**trained.node, "pretrained": published}
    try:
        with warnings.catch_warnings(action="ignore"):  # the run has shown them
            model = build_model(
                node,
                kind=task.kind,
                vocab_size=trained.tokenizer.vocab_size,
                num_classes=task.num_classes,
                pair_separator=task.pair_separator,
                seed=0,
            )
    except UserError:  # the weights are missing, or are those of another architecture
        return False
    expected = frozen_parameters(model)
    frozen = frozen_parameters(trained.model)
    return expected.keys() == frozen.keys() and all(
        mx.array_equal(expected[path], frozen[path]) for path in frozen
    )


def _base_argument(
    name: str, trained: TrainedModel, counterpart: Counterpart, *, has_config: bool
) -> str:
    """What transformers loads the base model by: its name, and the outputs where its config.json has others."""
    arguments = [json.dumps(name)]
    if counterpart.ending == "ForSequenceClassification" and not has_config:
        arguments.append(f"num_labels={trained.task.num_classes}")
        arguments += [f"pad_token_id={trained.tokenizer.pad_id}"] * trained.model.backbone.causal
    return ", ".join(arguments)
