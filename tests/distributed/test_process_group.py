"""A launch that cannot work is refused in one line; sums over all processes begin while gradients are computed."""

import mlx.core as mx
import pytest

from mlxlab.distributed import process_group
from mlxlab.distributed.process_group import ProcessGroup, init_process_group
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


def test_sums_start_with_the_last_layer_and_before_the_first_one_is_evaluated(monkeypatch):
    group = ProcessGroup(mx.distributed.init(), 1.0)
    group.size, group._global_rows = 2, 1  # without a ring, where a sum is that of this process
    events = []
    sum_of, evaluate = mx.distributed.all_sum, mx.eval
    monkeypatch.setattr(mx.distributed, "all_sum", lambda x, **kwargs: events.append(x.size) or sum_of(x, **kwargs))
    monkeypatch.setattr(mx, "eval", lambda *arrays: events.append("wait") or evaluate(*arrays))
    monkeypatch.setattr(process_group, "BUCKET_SIZE", 6)
    tree = {"loss": mx.array(2.0), "gradients": {"first": mx.ones((2, 4)), "last": mx.full((5,), 3.0)}}
    summed, per_example = group.all_reduce_sum(tree, {"loss": mx.ones(1)})
    assert events[:4] == [6, 8, 1, "wait"]  # rows and the last layer, the first layer, the loss
    assert summed["gradients"]["first"].tolist() == [[1.0] * 4] * 2
    assert (summed["gradients"]["last"].tolist(), summed["loss"].item()) == ([3.0] * 5, 2.0)
    assert per_example["loss"].tolist() == [1.0]
