"""Fixtures: the three services, of which each is started once for a module."""

import os
from collections.abc import Iterator

import pytest

from support.object_stores.emulators import Emulator, emulator


@pytest.fixture(name="shared_service", scope="module", params=["gcs", "s3", "azure"])
def shared_service_fixture(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulator(request.param) as running:
        yield running


@pytest.fixture(name="service")
def service_fixture(
    shared_service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """Sound at the beginning and at the end of a test."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    for name, value in shared_service.environment.items():
        monkeypatch.setenv(name, value)
    shared_service.proxy.requests.clear()
    shared_service.proxy.signatures.clear()
    yield shared_service
    shared_service.proxy.heal()
