"""examples/notebook: a valid notebook without outputs, whose cells run."""

import json
import os
import subprocess
import sys

import pytest

from support.example_projects import EXAMPLES
from support.processes import ROOT, environment

NOTEBOOK = json.loads((EXAMPLES / "notebook" / "quickstart.ipynb").read_text())


def test_the_file_is_valid_and_holds_no_outputs():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in NOTEBOOK["cells"]:
        extra = {"outputs", "execution_count"} if cell["cell_type"] == "code" else set()
        assert cell.keys() == {"cell_type", "id", "metadata", "source"} | extra
        assert all(isinstance(line, str) for line in cell["source"])
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
def test_its_cells_train_show_metrics_and_predict(tmp_path):
    sources = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    cells = [f"exec(compile({source!r}, 'cell', 'exec'))" for source in sources]
    show = "print(len(model.predict(held_out)), run.metrics, run.folder, scores.mean() > 0.7)"
    command = [sys.executable, "-c", "\n".join([*cells, show])]
    clean = environment(PYTHONPATH=str(ROOT / "src"))
    done = subprocess.run(
        command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean trainer.epochs?" in done.stdout
    shown = done.stdout.splitlines()[-1]
    assert shown.startswith("262 {'valid/loss':")
    assert str(tmp_path / "outputs") in shown
    assert shown.endswith("True")
    assert os.listdir(tmp_path / "outputs")


@pytest.mark.fault_injection
def test_it_runs_in_a_kernel_of_jupyter(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(EXAMPLES / "notebook" / "quickstart.ipynb", as_version=4)
    where = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=300, resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(output.get("data", {}).get("image/png") for output in outputs)
