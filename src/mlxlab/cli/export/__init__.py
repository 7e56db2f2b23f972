"""Exports trained models for other uses.

    mlxlab export merge run=RUN_FOLDER out=FOLDER [checkpoint=best]
    mlxlab export quantize run=RUN_FOLDER out=FOLDER [bits=4] [group_size=64] [mode=affine] [skip=[PATTERN]]
                           [checkpoint=best] [evaluate=true] [max_batches=N]
    mlxlab export hf run=RUN_FOLDER out=FOLDER [dtype=float32] [checkpoint=best]
    mlxlab export peft run=RUN_FOLDER out=FOLDER [checkpoint=best]
    mlxlab export gguf run=RUN_FOLDER out=FILE.gguf [dtype=float32] [checkpoint=best]
    mlxlab export onnx run=RUN_FOLDER out=FILE.onnx [checkpoint=best]

merge     folds the adapters (model/adapter=lora) into the weights, in float32
quantize  the same, with the weights of linear layers and embeddings in few bits; summary.md and quantization.json
          compare the size and the metrics of the validation and test data before and after
hf        writes the layout of Hugging Face, for transformers and, of decoders, mlx-lm: config.json, model.safetensors,
          the tokenizer, a model card
peft      writes the adapters for Hugging Face's PEFT: adapter_config.json, adapter_model.safetensors, the tokenizer,
          and in base/ the model below them, unless it is that of model.pretrained, a folder or of the hub
gguf      writes a decoder and its tokenizer as one file for llama.cpp
onnx      writes model=tabular as one file for onnxruntime, which takes the columns of the table and needs no mlxlab

The new folder of merge and quantize is like that of a run: `evaluate`, `predict` and `generate` take it as run=FOLDER,
a new run starts from it with model.init_from=FOLDER. It holds no optimizer state, so that nothing resumes from it.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mlxlab.cli.export.published import print_output
from mlxlab.cli.print_json import print_result
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.messages import announce

if TYPE_CHECKING:
    from mlxlab.models.options import Quantization

ACTIONS = {
    "merge": "merge",
    "quantize": "quantize",
    "hf": "published.export_hf",
    "peft": "published.export_peft",
    "gguf": "published.export_gguf",
    "onnx": "published.export_onnx",
}
log = logging.getLogger(__name__)


def merge(run: Path, out: Path, checkpoint: str = "best", json: bool = False) -> None:
    """Folds adapters into the weights.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        json: prints JSON instead.
    """
    from mlxlab import backend

    working = announce(f"merging the adapters of {run}")
    backend.prepare()
    from mlxlab.inference.export import merge_adapters

    with working:
        restored = merge_adapters(run, out, checkpoint)
    log.info(f"merged the adapters of step {restored.checkpoint.step} of {run}")
    print_output(out, json)


def quantize(
    run: Path,
    out: Path,
    checkpoint: str = "best",
    evaluate: bool = True,
    max_batches: Size | None = None,
    json: bool = False,
    **options: "Unpack[Quantization]",  # type: ignore[misc]
) -> None:
    """Quantises the weights and reports what changed.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        evaluate: compare the metrics, for which the data of the run is needed.
        max_batches: batches at most of each split; null takes all.
        json: prints JSON instead of a table.
    """
    bits: dict[str, Any] = {"bits": 4, **options}
    if bits["bits"] is None:
        raise ConfigError("bits=null: expected 2, 3, 4, 5, 6 or 8")
    from mlxlab import backend

    working = announce(f"quantising {run}")
    backend.prepare()
    from mlxlab.analysis.quantization import quantize_run
    from mlxlab.backend.ops.native.activation import activate_for_inference
    from mlxlab.models.options import Quantization

    activate_for_inference()
    quantization = Quantization(**bits)
    with working:
        report = quantize_run(
            run, out, checkpoint, quantization, with_metrics=evaluate, max_batches=max_batches
        )
    print_result(asdict(report), f"{report.text()}\n\n{out}", json)
