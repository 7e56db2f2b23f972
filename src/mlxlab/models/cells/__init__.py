"""The cells of a table, which `model=tabular` reads in place of texts, and where a run keeps their encoder."""

from contextlib import suppress
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import read_json

FORMAT = "mlxlab.models.cells/2"
FOLDER = "text_encoder"  # below the `inference` folder of a run


def holds_cells(folder: Path) -> bool:
    """Whether `CellEncoder.save` wrote the encoder in a folder; False where its file cannot be read."""
    with suppress(InputNotFoundError, DataError):
        return read_json(folder / "data.json", dict[str, object]).get("format") == FORMAT
    return False
