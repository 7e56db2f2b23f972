"""examples/docker: the instructions of the Dockerfile, run in a new folder and environment instead of an image."""

import json
import os
import re
import shlex
import shutil
import sys
import sysconfig
import venv

import pytest

from support.example_projects import EXAMPLES, shell, shell_lines
from support.processes import ROOT

TEXT = (EXAMPLES / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = [
    re.findall(r"^([A-Z]+) (.*)$", stage, re.M)
    for stage in re.split(r"^FROM .*$", TEXT, flags=re.M)[1:]
]
SHORT = "trainer.max_steps=10 trainer.eval_every=5 trainer.schedule.warmup=2"


def test_every_copied_path_exists_and_the_wheel_is_built_from_them():
    build = STAGES[0]
    copied = {path for name, args in build if name == "COPY" for path in args.split()[:-1]}
    assert all((ROOT / path).exists() for path in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "src", "conf"} <= copied
    assert [name for stage in STAGES for name, _ in stage].count("ENTRYPOINT") == 1


@pytest.mark.fault_injection
def test_the_commands_of_the_readme_work_in_what_the_dockerfile_makes(tmp_path):
    """Dependencies are those of this environment, so that no index is needed."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    offline = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    offline["PYTHONPATH"] = ""
    offline |= {"PATH": f"{tmp_path}/env/bin:/usr/bin:/bin", "BACKEND": "cpu"}
    variables, entrypoint = dict(offline), []
    for stage in STAGES:
        folder = tmp_path
        for name, args in stage:
            args = re.sub(r"(?<![\w.])/(build|wheels|work)\b", rf"{tmp_path}/\1", args)
            if name == "WORKDIR":
                folder = tmp_path / args
                folder.mkdir()
            elif name == "COPY" and not args.startswith("--from"):
                *sources, target = args.split()
                for source in sources:
                    shell(f"cp -r {ROOT / source} {shlex.quote(target)}", folder)
            elif name == "RUN" and "apt-get" not in args:
                shell(args, folder, **offline)
            elif name == "ENV":
                variables |= dict([args.split("=", 1)])
            elif name == "ENTRYPOINT":
                entrypoint = json.loads(args)
    work = tmp_path / "work"
    assert entrypoint == ["mlxlab"]
    program = shutil.which("mlxlab", path=offline["PATH"])
    assert os.path.samefile(program, tmp_path / "env" / "bin" / "mlxlab")
    for line in shell_lines(EXAMPLES / "docker" / "README.md"):
        if line.startswith("docker run"):
            command = line.split(" mlxlab ")[1]
            command = command.replace("experiment=quick", f"experiment=quick {SHORT}")
            shell(f"{entrypoint[0]} {command}", work, **variables)
    assert (work / "predictions.csv").is_file()
    assert (work / ".cache").is_dir()
    assert sys.prefix not in shell("head -1 $(command -v mlxlab)", work, **offline)
