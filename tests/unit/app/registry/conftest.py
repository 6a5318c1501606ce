"""Registries in a folder and in a bucket of a real S3-compatible server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from s3_server import s3_server

from app.registry.place import Place


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """A URL; in the environment of this process the rest of what a client must know."""
    with s3_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files, _ = fsspec.url_to_fs("s3://corewrite")
        files.mkdir("corewrite")
        yield "s3://corewrite"


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place of each kind."""
    if request.param == "folder":
        return str(tmp_path / "registry")
    return f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}"


@pytest.fixture
def place(url: str) -> Place:
    return Place.at(url)


@pytest.fixture
def spoil(place: Place) -> Callable[..., None]:
    """Write over a file of the registry, as nobody should."""

    def write(content: bytes, *parts: str) -> None:
        with place.files.open(place.path(*parts), "wb") as stream:
            stream.write(content)

    return write
