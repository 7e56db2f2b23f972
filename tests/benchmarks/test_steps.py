"""Subjects of the step benchmark."""

import re
from importlib.util import find_spec

import pytest
from benchmarks.steps import step_subjects
from benchmarks.subject import language_model

from support.processes import ROOT


@pytest.mark.parametrize("family", ["bert", "transformer"])
@pytest.mark.parametrize(("name", "compiles"), [("PyTorch", False), ("PyTorch compiled", True)])
def test_pytorch_begins_at_the_same_loss_with_a_fused_optimizer_and_compiles_its_loss(
    monkeypatch, name, compiles, family
):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(step_subjects, "RATE", 1e-2)
    compiled, options, adamw = [], {}, torch.optim.AdamW
    monkeypatch.setattr(
        torch, "compile", lambda f: lambda *args: compiled.append(f(*args)) or compiled[-1]
    )
    monkeypatch.setattr(
        torch.optim, "AdamW", lambda groups, **more: options.update(more) or adamw(groups, **more)
    )
    model = language_model(family, "nano", 64, num_layers=1, dropout=0.0)
    shape = step_subjects.Shape(length=8, vocabulary=64)
    step, loss = step_subjects.torch_step(name, model, family, shape)
    initial = loss()
    ours = step_subjects.mlxlab_step("simple", model, shape)[1]()
    assert initial == pytest.approx(ours, abs=1e-5)
    step()
    step()
    assert loss() < initial
    assert options["fused"]
    assert [value.ndim for value in compiled] == [0, 0] * compiles


def test_every_module_that_runs_in_a_process_of_its_own_exists():
    calls = r'\b(?:measure|run_module)\("([\w.]+)"'
    text = "\n".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    names = re.findall(calls, text)
    assert len(names) > 5
    assert [name for name in names if find_spec(f"benchmarks.{name}") is None] == []
