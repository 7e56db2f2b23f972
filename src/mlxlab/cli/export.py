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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from mlxlab.cli.app import prepare_inference, print_result
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.schema.constraints import Size
from mlxlab.terminal.messages import announce
from mlxlab.terminal.program import install_command

if TYPE_CHECKING:
    from mlxlab.inference.restore import RestoredModel
    from mlxlab.models.interop.model_card import Origin
    from mlxlab.models.options import Quantization

ACTIONS = {
    "merge": "merge",
    "quantize": "quantize",
    "hf": "export_hf",
    "peft": "export_peft",
    "gguf": "export_gguf",
    "onnx": "export_onnx",
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
    print_result({"output": str(out)}, str(out), json)


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
    working = announce(f"quantising {run}")
    prepare_inference()
    from mlxlab.analysis.quantization import quantize_run
    from mlxlab.models.options import Quantization

    quantization = Quantization(**bits)
    with working:
        report = quantize_run(
            run, out, checkpoint, quantization, with_metrics=evaluate, max_batches=max_batches
        )
    print_result(asdict(report), f"{report.text()}\n\n{out}", json)


def export_hf(
    run: Path,
    out: Path,
    checkpoint: str = "best",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    json: bool = False,
) -> None:
    """Writes a folder for transformers and mlx-lm.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        dtype: type of the weights.
        json: prints JSON instead.
    """
    with _exporting(run, out, checkpoint, json) as restored:
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop.hugging_face import export_hugging_face

        export_hugging_face(trained_model(restored), out, _origin(run, restored), dtype)


def export_peft(run: Path, out: Path, checkpoint: str = "best", json: bool = False) -> None:
    """Writes adapters for PEFT.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        json: prints JSON instead.
    """
    with _exporting(run, out, checkpoint, json) as restored:
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop import peft

        pretrained = restored.config["model"].get("pretrained")
        peft.export_peft(trained_model(restored), out, _origin(run, restored), pretrained)


def export_gguf(
    run: Path,
    out: Path,
    checkpoint: str = "best",
    dtype: Literal["float32", "float16"] = "float32",
    json: bool = False,
) -> None:
    """Writes a GGUF file.

    Args:
        run: a run folder.
        out: the file to write, FILE.gguf; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        dtype: type of the matrices.
        json: prints JSON instead.
    """
    with _exporting(run, out, checkpoint, json, ".gguf") as restored:
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop import gguf

        gguf.export_gguf(trained_model(restored), out, run.absolute().name, dtype)


def export_onnx(run: Path, out: Path, checkpoint: str = "best", json: bool = False) -> None:
    """Writes an ONNX file.

    Args:
        run: a run folder.
        out: the file to write, FILE.onnx; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        json: prints JSON instead.
    """
    if find_spec("onnx") is None:
        raise ServiceUnavailableError(f"export onnx: needs onnx: {install_command('onnx')}")
    with _exporting(run, out, checkpoint, json, ".onnx") as restored:
        from mlxlab.inference.export import trained_model
        from mlxlab.inference.predict import row_reading
        from mlxlab.models.interop import onnx

        encoder = onnx.table_encoder(restored.encoder)
        onnx.export_onnx(
            trained_model(restored),
            encoder,
            row_reading(restored.config["data"]).missing,
            out,
            _origin(run, restored),
        )


@contextmanager
def _exporting(
    run: Path, out: Path, checkpoint: str, json: bool, suffix: str = ""
) -> Iterator["RestoredModel"]:
    """The model to export, and at the end the line of the command; ConfigError for a file without the suffix."""
    with announce(f"exporting {run}"):
        if not out.name.endswith(suffix):
            raise ConfigError(f"out={out}: expected the name of a file that ends in {suffix}")
        from mlxlab import backend

        backend.prepare()
        from mlxlab.inference.export import check_output, restore_single

        check_output(run, out)
        yield restore_single(run, checkpoint)
    print_result({"output": str(out)}, str(out), json)


def _origin(run: Path, restored: "RestoredModel") -> "Origin":
    """Where the model comes from, for the card."""
    from mlxlab.inference.export import origin_of
    from mlxlab.record.run_file import read_run

    record = None
    with suppress(InputNotFoundError, DataError):
        record = read_run(run)
    return origin_of(restored, run, record)
