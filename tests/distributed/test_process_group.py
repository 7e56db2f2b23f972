"""A launch that cannot work is refused in one line."""

import mlx.core as mx
import pytest

from mlxlab.distributed.process_group import init_process_group
from mlxlab.errors import ConfigError


def fail():
    raise RuntimeError("[nccl] no device\ndetails")


def test_an_error_of_a_launch_without_a_host_file_does_not_name_the_host_file(monkeypatch):
    monkeypatch.delenv("MLX_HOSTFILE", raising=False)
    monkeypatch.setattr(mx.distributed, "init", fail)
    with pytest.raises(ConfigError) as caught:
        init_process_group("data", 1.0)
    assert str(caught.value) == "MLX cannot start a group ([nccl] no device)"


def test_an_error_of_a_launch_names_the_host_file_that_is_set(monkeypatch):
    monkeypatch.setenv("MLX_HOSTFILE", __file__)
    monkeypatch.setattr(mx.distributed, "init", fail)
    with pytest.raises(ConfigError, match=r"^MLX_HOSTFILE=.*: expected the host file of a launcher .*no device"):
        init_process_group("data", 1.0)
