"""Addresses that mlxlab prints name the same place when they are typed."""

import pytest

from mlxlab.errors import ConfigError
from mlxlab.extensions.cloud.object_store import DirectoryStore
from mlxlab.run.storage import open_address


@pytest.mark.parametrize("name", ["backup dir", "50%25", "a#b?c", "e\u0301t\u00e9"])
def test_the_printed_address_of_a_folder_can_be_typed(tmp_path, name):
    store = DirectoryStore(tmp_path / name)
    store.put("checkpoints/run/key", [b"data"])
    cloud = open_address(f"{store.address}/checkpoints/run", {})
    assert cloud.store.list(cloud.prefix).sizes == {"run/key": 4}
    assert cloud.address == f"{store.address}/checkpoints/run"


@pytest.mark.parametrize("bucket", ["ab", "-bucket", "b" * 223])
def test_the_name_of_a_bucket_that_cannot_be_one_is_refused_with_its_length(bucket):
    with pytest.raises(ConfigError, match="3 to 222 letters"):
        open_address(f"s3://{bucket}/runs", {})


def test_an_address_without_its_option_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mlxlab.run.storage.conf_dir", lambda: tmp_path)
    with pytest.raises(ConfigError, match="cloud=s3"):
        open_address("s3://bucket/runs", {})
