"""Which hosts and backends `launch` starts, how it refuses the others, and the exit code of MPI."""

import json
import sys

import pytest

from mlxlab.cli import main
from mlxlab.training.distributed import launcher
from mlxlab.training.distributed.launcher import check_reachable

TWO = [{"ssh": f"mac-{n}", "ips": [f"10.0.0.{n}"]} for n in (1, 2)]
GPUS = [TWO[0], TWO[0], TWO[1], TWO[1]]


MESH = [TWO[0] | {"rdma": [None, "en2"]}, TWO[1] | {"rdma": [["en3", "en4"], None]}]


@pytest.fixture
def started(monkeypatch):
    """The command lines that would have been started."""
    commands = []
    monkeypatch.setattr(launcher, "run", lambda command, is_mpi: commands.append(command) or 0)
    monkeypatch.setattr(launcher, "check_reachable", lambda hosts: None)
    monkeypatch.setattr(launcher.shutil, "which", lambda name: f"/usr/bin/{name}")
    return commands


@pytest.fixture
def written(tmp_path):
    """A function: the argument that names a host file with this content."""

    def write(content):
        path = tmp_path / "hosts.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return f"hostfile={path}"

    return write


def option(command, name):
    return command[command.index(name) + 1]


@pytest.mark.parametrize(
    ("args", "backend", "per_host", "processes"),
    [
        (["nproc=2"], "ring", 2, 2),
        (["hosts=10.0.0.1,10.0.0.2"], "ring", 1, 2),
        (["hosts=127.0.0.1", "nproc=3"], "ring", 3, 3),
        (["hosts=10.0.0.1,gpu-2", "nproc=4", "backend=nccl"], "nccl", 4, 8),
        (["hosts=me@node-1,node-2", "backend=mpi"], "mpi", 1, 2),
    ],
)
def test_hosts_are_started_with_what_their_backend_needs(
    args, backend, per_host, processes, started
):
    assert main.main(["launch", *args, "seed=1"]) == 0
    [command] = started
    assert (option(command, "--backend"), option(command, "-n")) == (backend, str(per_host))
    assert option(command, "--env") == f"MLXLAB_PROCESSES={processes}"
    assert command[-2:] == ["seed=1", "trainer.parallel=data"]


@pytest.mark.parametrize(
    ("content", "args", "backend", "per_host"),
    [
        (TWO, [], "ring", 1),
        ({"hosts": MESH, "backend": "jaccl", "envs": ["MLX_METAL_FAST_SYNCH=1"]}, [], "jaccl", 1),
        (MESH, ["backend=jaccl"], "jaccl", 1),
        (GPUS, ["backend=nccl"], "nccl", 2),
        ([{"ssh": "node-1"}, {"ssh": "node-2"}], ["backend=mpi"], "mpi", 1),
    ],
)
def test_a_host_file_is_passed_on_with_its_backend(
    content, args, backend, per_host, started, written
):
    file = written(content)
    assert main.main(["launch", file, *args]) == 0
    [command] = started
    assert f"--{file}" in command
    assert (option(command, "--backend"), option(command, "-n")) == (backend, str(per_host))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["hosts=-oProxyCommand,b"], "expected names of machines"),
        (["nproc=2", "hostfile=hosts.json"], "hostfile=...: expected neither nproc nor hosts"),
        (["model=bert"], "nproc=...: missing"),
        (["nproc=2", "-m"], "-m: launch starts a single run"),
        (["nproc=2", "backend=rng"], "expected one of ring"),
    ],
)
def test_what_cannot_be_started_is_refused(args, message, started, capsys):
    assert main.main(["launch", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert started == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("10.0.0.1\n10.0.0.2\n", "not valid JSON"),
        ([], "expected"),
        ([["10.0.0.1:5000"]], "expected dict"),
        ([{"ssh": "mac-1", "ip": "10.0.0.1"}], "unknown key 'ip'"),
        ([{"ssh": "-oProxyCommand=sh"}], "expected the name of a host"),
        ({"hosts": TWO, "envs": ["LD_PRELOAD=/tmp/a.so"]}, "envs: expected"),
        ({"hosts": TWO, "envs": ["NCCL_DEBUG=INFO", "PYTHONPATH=/tmp"]}, "envs: expected"),
    ],
)
def test_a_damaged_host_file_is_one_line(content, message, started, written, capsys):
    file = written(content)
    assert main.main(["launch", file]) == 65
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(file.partition("=")[2])
    assert message in line
    assert main.main(["launch", f"{file}x"]) == 66
    assert capsys.readouterr().err.endswith("/hosts.jsonx: not found\n")
    assert started == []


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """A function: replaces `ssh` by a program with this script."""

    def replace(script):
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return replace


@pytest.mark.parametrize("installed", [True, False])
def test_a_host_that_cannot_be_reached_is_one_line(ssh, capfd, monkeypatch, installed):
    ssh("echo first >&2; echo 'Connection refused' >&2; exit 255")
    if not installed:
        monkeypatch.setenv("PATH", "/nowhere")
    assert main.main(["launch", "hosts=10.0.0.1,10.0.0.2"]) == 69
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("10.0.0.1: " if installed else "ssh: ")


def test_only_other_hosts_are_reached_by_ssh(ssh, tmp_path):
    ssh(f'echo "$@" >> {tmp_path}/calls')
    check_reachable(["127.0.0.1", "mac-1", "mac-1", "mac-2"])
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[-2:] for call in calls] == [["mac-1", "true"], ["mac-2", "true"]]


MPI = {"   Exit code:    75": 75, "signal 9 (Killed).": 137, "a warning": 0}


@pytest.mark.parametrize(("printed", "code"), MPI.items())
def test_mpi_runs_this_interpreter_and_its_exit_code_is_returned(
    printed, code, tmp_path, monkeypatch, capfd
):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f'#!/bin/sh\necho "$@"\necho "{printed}" >&2\n')
    mpirun.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert main.main(["launch", "nproc=2", "backend=mpi", "seed=1"]) == code
    out, err = capfd.readouterr()
    assert f"-- {sys.executable} -m mlxlab train seed=1 trainer.parallel=data" in out
    assert printed in err


@pytest.mark.parametrize(
    ("printed", "code"),
    [
        (["rank 1 exited with code 75", "rank 0 exited with code 2"], 2),
        (["rank 1 exited with code -9", "rank 0 was killed"], 137),
        (["rank 0 exited with code -15"], 143),
        (["rank 1 exited with code 255", "rank 0 exited with code -15"], 75),
        ([], 3),
    ],
)
def test_the_exit_code_is_that_of_the_process_that_failed_not_of_those_stopped_for_it(
    printed, code, capsys
):
    lines = "".join(f"[WARN] Node with {line}\\n" for line in printed)
    program = f"import sys; sys.stderr.write('{lines}'); sys.exit({0 if printed else 3})"
    assert launcher.run([sys.executable, "-c", program]) == code
    assert len(capsys.readouterr().err.splitlines()) == len(printed)
