"""The exports for other programs: the arguments of their command lines."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlxlab.cli.print_json import print_result
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.terminal.messages import announce
from mlxlab.terminal.program import install_command

if TYPE_CHECKING:
    from mlxlab.inference.restore import RestoredModel
    from mlxlab.models.interop.model_card import Origin


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
    with announce(f"exporting {run}"):
        restored = _restore(run, out, checkpoint)
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop.hugging_face import export_hugging_face

        export_hugging_face(trained_model(restored), out, _origin(run, restored), dtype)
    print_output(out, json)


def export_peft(run: Path, out: Path, checkpoint: str = "best", json: bool = False) -> None:
    """Writes adapters for PEFT.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        json: prints JSON instead.
    """
    with announce(f"exporting {run}"):
        restored = _restore(run, out, checkpoint)
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop import peft

        pretrained = restored.config["model"].get("pretrained")
        peft.export_peft(trained_model(restored), out, _origin(run, restored), pretrained)
    print_output(out, json)


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
    with announce(f"exporting {run}"):
        restored = _restore(run, out, checkpoint, ".gguf")
        from mlxlab.inference.export import trained_model
        from mlxlab.models.interop import gguf

        gguf.export_gguf(trained_model(restored), out, run.absolute().name, dtype)
    print_output(out, json)


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
    with announce(f"exporting {run}"):
        restored = _restore(run, out, checkpoint, ".onnx")
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
    print_output(out, json)


def print_output(out: Path, json: bool) -> None:
    print_result({"output": str(out)}, str(out), json)


def _restore(run: Path, out: Path, checkpoint: str, suffix: str = "") -> "RestoredModel":
    """The model to export; ConfigError for a file without the suffix."""
    if not out.name.endswith(suffix):
        raise ConfigError(f"out={out}: expected the name of a file that ends in {suffix}")
    from mlxlab import backend

    backend.prepare()
    from mlxlab.inference.export import check_output, restore_single

    check_output(run, out)
    return restore_single(run, checkpoint)


def _origin(run: Path, restored: "RestoredModel") -> "Origin":
    """Where the model comes from, for the card."""
    from mlxlab.inference.export import origin_of
    from mlxlab.record.run_file import read_run

    record = None
    with suppress(InputNotFoundError, DataError):
        record = read_run(run)
    return origin_of(restored, run, record)
