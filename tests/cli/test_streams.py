"""Standard streams that are closed or full, and names of folders that no system has: one line each."""

import subprocess
import sys

import pytest

from support.processes import environment


def mlxlab(command):
    """Runs a command by a shell; returns its exit code and the lines on standard error."""
    shell = f"{sys.executable} -m mlxlab {command}"
    done = subprocess.run(
        ["bash", "-c", shell], env=environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("command", ["", "predict --help", "kernels info --json"])
def test_a_full_disk_behind_standard_output_is_one_line(command):
    code, [line] = mlxlab(f"{command} > /dev/full")
    assert (code, line) == (74, "standard output: No space left on device")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_a_closed_stream_costs_what_is_written_to_it_alone(closed):
    assert mlxlab(f"kernels info {closed}") == (0, [])


def test_a_run_folder_with_a_name_that_no_system_has_is_not_found():
    for command in ("info", "verify", "reproduce"):
        code, [line] = mlxlab(f"{command} run={'a' * 300}")
        assert code == 66, command
        assert line.endswith("File name too long")
