"""Packs in an S3 bucket and on the Hub: the same frames as in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmsd.data import remote
from fmsd.data.mirror import root_folder
from fmsd.errors import InputError
from tests import hub_server
from tests.test_remote import contents, empty_cache, local, stored

__all__ = ["empty_cache", "local"]


@contextlib.contextmanager
def object_store(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an S3 server on this machine."""
    pytest.importorskip("s3fs", reason="pip install 'fmsd[s3]'")
    server = pytest.importorskip("moto.server", reason="pip install moto flask flask-cors")
    import boto3

    threaded = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    threaded.start()
    try:
        host, port = threaded.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "kanarienvogel")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "kanarienvogel")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.client("s3")
    finally:
        threaded.stop()


def test_a_bucket(local, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with object_store(monkeypatch) as client:
        client.create_bucket(Bucket="faces")
        for path in local.root.iterdir():
            client.upload_file(str(path), "faces", f"packs/all/{path.name}")
        manifest = stored(root_folder("s3://faces/packs/all/"))
        assert manifest.digest() == local.digest()
        assert contents(manifest) == contents(local)
        with pytest.raises(InputError, match=r"There is no s3://none/pack/pack\.json \(.*bucket"):
            root_folder("s3://none/pack")
        with pytest.raises(InputError, match=r"There is no s3://faces/pack/pack\.json"):
            root_folder("s3://faces/pack")
        client.delete_object(Bucket="faces", Key="packs/all/00001.tar")
        with pytest.raises(InputError, match=r"There is no s3://faces/packs/all/00001\.tar"):
            remote.fetch_size("s3://faces/packs/all/00001.tar")


def test_the_hub(local, tmp_path: Path) -> None:
    with hub_server.serving(tmp_path / "hub") as store:
        repository = store.repositories.setdefault("me/faces", hub_server.Repository())
        repository.commit(
            "main", {f"all/{path.name}": path.read_bytes() for path in local.root.iterdir()}
        )
        manifest = stored(root_folder("hf://me/faces/all"))
        assert contents(manifest) == contents(local)
        with pytest.raises(InputError, match=r"hf://me/other/all/pack\.json"):
            root_folder("hf://me/other/all")
