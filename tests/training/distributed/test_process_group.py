"""A launch that cannot work is refused in one line; sums over all processes begin while gradients are computed."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import mlx.core as mx
import pytest

from mlxlab.errors import ConfigError
from mlxlab.training.distributed import process_group
from mlxlab.training.distributed.process_group import ProcessGroup, init_process_group


def fail():
    raise RuntimeError("[nccl] no device\ndetails")


@pytest.mark.parametrize("hostfile", ["", __file__])
def test_an_error_of_a_launch_names_the_host_file_if_one_is_set(monkeypatch, hostfile):
    monkeypatch.setenv("MLX_HOSTFILE", hostfile)
    monkeypatch.setattr(mx.distributed, "init", fail)
    with pytest.raises(ConfigError, match=r"\(\[nccl\] no device\)$") as caught:
        init_process_group("data", 1.0)
    assert ("MLX_HOSTFILE" in str(caught.value)) == bool(hostfile)


@pytest.mark.parametrize("name", ["MLXLAB_PROCESSES", "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_processes_that_are_not_connected_do_not_each_train_alone(monkeypatch, name):
    monkeypatch.delenv("MLX_HOSTFILE", raising=False)
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv(name, "2")
    with pytest.raises(ConfigError, match="MLX did not connect the 2 processes that were started"):
        init_process_group("data", 1.0)
    monkeypatch.setenv(name, "1")
    assert init_process_group("data", 1.0).size == 1


def test_a_group_is_released_at_exit_so_that_mpi_is_finalized(monkeypatch):
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda act, *args: at_exit.append((act, args)))
    group = init_process_group("none", 1.0)
    assert group.group is not None
    for act, args in at_exit:
        act(*args)
    assert group.group is None


def test_a_sum_starts_once_its_gradients_are_computed_from_the_last_layer_on(monkeypatch):
    group = ProcessGroup(mx.distributed.init(), 1.0)
    group.size, group._global_rows = 2, 1  # without a ring, where a sum is that of this process
    events = []
    sum_of, start = mx.distributed.all_sum, mx.async_eval
    monkeypatch.setattr(
        mx.distributed, "all_sum", lambda x, **options: events.append("sum") or sum_of(x, **options)
    )
    monkeypatch.setattr(mx, "async_eval", lambda array: events.append(array.size) or start(array))
    monkeypatch.setattr(process_group, "BUCKET_SIZE", 6)
    tree = {
        "loss": mx.array(2.0),
        "gradients": {"first": mx.ones((2, 4)), "last": mx.full((5,), 3.0)},
    }
    summed, per_example = group.all_reduce_sum(tree, {"loss": mx.ones(1)})
    # Rows and the last layer, the first layer, the loss.
    assert events == [6, "sum", 6, 8, "sum", 8, 1, "sum", 1]
    assert summed["gradients"]["first"].tolist() == [[1.0] * 4] * 2
    assert (summed["gradients"]["last"].tolist(), summed["loss"].item()) == ([3.0] * 5, 2.0)
    assert per_example["loss"].tolist() == [1.0]


ENDLESS = """
import mlx.core as mx
from mlxlab.training.distributed import process_group
from mlxlab.training.distributed.process_group import ProcessGroup
process_group.BUCKET_SIZE = 1
group = ProcessGroup(mx.distributed.init(), 60.0)
group._global_rows = 2
while True:
    y = mx.ones((512, 512))
    group.all_reduce_sum({f"{i:02d}": (y := mx.tanh(y @ y)) for i in range(30)}, {"loss": mx.ones(1)})
    print("summed", flush=True)
"""


@pytest.mark.fault_injection
def test_a_process_that_dies_among_many_sums_ends_the_others_at_once(tmp_path):
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in free_ports(2)]))
    command = [sys.executable, "-c", ENDLESS]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    ranks = [
        subprocess.Popen(
            command, env=os.environ | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}, **options
        )
        for rank in range(2)
    ]
    try:
        assert ranks[0].stdout.readline() == b"summed\n"
        time.sleep(0.1)  # in the next sums
        ranks[1].kill()
        _, err = ranks[0].communicate(timeout=30)
        assert b"process 0 of 2: another process exited" in err
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def free_ports(count):
    with ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [server.getsockname()[1] for server in servers]
