"""Limits of a GPU, and the variable of Apple's driver; both run on any device."""

import os

import mlx.core as mx

from mlxlab.backend import device, memory_budget


def test_the_cache_of_a_gpu_is_a_quarter_of_its_memory():
    before = mx.set_cache_limit(0)
    try:
        device.limit_gpu_memory()
        assert mx.set_cache_limit(before) == memory_budget() // 4
    finally:
        mx.set_cache_limit(before)


def test_the_timeout_of_metal_is_relaxed_on_macos_only_and_never_overridden(monkeypatch):
    monkeypatch.delenv(device.METAL_TIMEOUT, raising=False)
    device.prepare()
    assert device.METAL_TIMEOUT not in os.environ or device.sys.platform == "darwin"
    monkeypatch.setattr(device.sys, "platform", "darwin")
    device.prepare()
    assert os.environ[device.METAL_TIMEOUT] == "1"
    monkeypatch.setenv(device.METAL_TIMEOUT, "0")
    device.prepare()
    assert os.environ[device.METAL_TIMEOUT] == "0"
