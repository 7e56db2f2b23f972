"""The exports for other programs: the arguments of their command lines."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

from mlxlab.errors import DataError, InputNotFoundError


def export_hf(
    run: Path,
    out: Path,
    checkpoint: str = "best",
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    dequantize: bool = False,
) -> None:
    """Writes a folder for transformers and mlx-lm.

    Args:
        run: a run folder.
        out: the folder to write; it must not exist.
        checkpoint: best, last, emergency, step-N, or the path of a checkpoint.
        dtype: type of the weights.
        dequantize: write the weights of quantised layers as numbers too, for transformers.
    """
    from mlxlab import backend

    backend.prepare()
    from mlxlab.files.new_folder import refuse_existing
    from mlxlab.inference.export import restore_single
    from mlxlab.inference.trained_model import origin_of, trained_model
    from mlxlab.interop.hugging_face import export_hugging_face

    refuse_existing(out)
    restored = restore_single(run, checkpoint)
    origin = origin_of(restored, run.absolute().name, _commit(run))
    export_hugging_face(trained_model(restored), out, origin, dtype, dequantize)
    print(out)


def _commit(run: Path) -> str:
    """The commit of the program that trained the run, "" if that is unknown."""
    from mlxlab.experiment.manifest import read_manifest

    with suppress(InputNotFoundError, DataError):
        return read_manifest(run).get("git", {}).get("commit") or ""
    return ""
