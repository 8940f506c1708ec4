"""Milvus, embedded and as a server."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from in_milvus import PREFIX, release


@pytest.fixture(scope="module", params=["embedded", "server"])
def server(request: pytest.FixtureRequest) -> str | None:
    """The address of a server; None for the engine that is embedded in this process."""
    for module in ("pymilvus", "milvus_lite"):
        pytest.importorskip(module, reason="needs the extra milvus")
    address = os.environ.get("FUSECOMP_MILVUS")
    if request.param == "server" and not address:
        pytest.skip("needs a Milvus server, such as FUSECOMP_MILVUS=http://localhost:19530")
    return address if request.param == "server" else None


@pytest.fixture(scope="module")
def client(server: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from pymilvus import MilvusClient

    path = server or str(tmp_path_factory.mktemp("milvus") / "images.db")
    client = MilvusClient(path)
    yield client
    for name in client.list_collections():
        if name.startswith(PREFIX):
            client.drop_collection(name)
    release(path)
