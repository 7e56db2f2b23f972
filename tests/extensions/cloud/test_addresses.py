"""Addresses that mlxlab prints name the same place when they are typed."""

import pytest

from mlxlab.extensions.cloud.object_store import DirectoryStore
from mlxlab.run.storage import open_address


@pytest.mark.parametrize("name", ["backup dir", "50%25", "a#b?c", "e\u0301t\u00e9"])
def test_the_printed_address_of_a_folder_can_be_typed(tmp_path, name):
    store = DirectoryStore(tmp_path / name)
    store.put("checkpoints/run/key", [b"data"])
    cloud = open_address(f"{store.address}/checkpoints/run", {})
    assert cloud.store.list(cloud.prefix).sizes == {"run/key": 4}
    assert cloud.address == f"{store.address}/checkpoints/run"
