"""A pack at an address is the pack: the same frames, whatever the network does."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

from fmsd.cli.main import main
from fmsd.data import mirror as mirrors
from fmsd.data import pack, remote
from fmsd.data.content_files import read_contents
from fmsd.data.entries import from_entries
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import read_bytes
from fmsd.data.loading.readable import ReadableFrames
from fmsd.data.loading.sampler import ProcessBatches
from fmsd.data.loading.shards import FetchAhead, Shards
from fmsd.data.loading.stored import StoredFrames
from fmsd.data.manifest import Manifest
from fmsd.data.mirror import mirror, root_folder
from fmsd.data.prepared_folder import prepared_manifest
from fmsd.data.sources import folder
from fmsd.engine.predictions import stored_content
from fmsd.engine.training_order import make_order
from fmsd.errors import InputError
from fmsd.lock import open_locked
from fmsd.paths import file_digest
from tests.conftest import fmsd_here, grow_tree
from tests.file_server import Served, serving
from tests.test_resume import TINY, start


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cache of the test's own, and no pauses between attempts."""
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES", (0.01,) * 5)
    yield
    mirror.cache_clear()
    mirrors.mirror_record.cache_clear()


@pytest.fixture
def local(tree: Path, tmp_path: Path) -> Manifest:
    """A pack of eight or so tars in a folder."""
    splits = {"train": "train", "val": "val", "test": "test"}
    files = from_entries(
        folder.scan(tree, "tree", "{split}/{domain}/{video}", splits, ["real"]), tree
    )  # pyright: ignore[reportArgumentType]
    assert pack.write_pack(files.table, files.files(), tmp_path / "served" / "pack", 13_000) > 5
    return stored(tmp_path / "served" / "pack")


@pytest.fixture
def served(local: Manifest) -> Iterator[Served]:
    with serving(local.root.parent) as place:
        yield place


def stored(root: Path) -> Manifest:
    manifest = prepared_manifest(root)
    assert manifest is not None
    return manifest


def streamed(served: Served) -> Manifest:
    return stored(root_folder(f"{served.address}/pack"))


def contents(manifest: Manifest) -> list[bytes]:
    return [read_bytes(place) for place in manifest.files()]


def kept(pattern: str = "*.tar") -> list[Path]:
    return sorted(Path(os.environ["FMSD_CACHE"]).glob(f"packs/*/{pattern}"))


def largest(manifest: Manifest) -> int:
    return max(tar.stat().st_size for tar in manifest.root.glob("*.tar"))


@pytest.mark.parametrize("faults", [["drop"], ["500", "500"], ["short"], ["wrong"]])
def test_failures_of_the_network_are_made_up_for(
    faults: list[str], local: Manifest, served: Served
) -> None:
    names = [path.name for path in local.root.iterdir()]
    served.faults = {name: list(faults) for name in names}
    if faults != ["wrong"]:  # pack.json vouches for the others
        assert streamed(served).digest() == local.digest()
    served.faults.pop("pack.json")
    remote_pack = streamed(served)
    assert remote_pack.validate().table.equals(local.table)
    assert not kept()
    assert contents(remote_pack) == contents(local)
    assert not any(served.faults[tar.name] for tar in kept())
    assert {name: served.sent[name] for name in names if name.endswith(".tar")} == {
        tar.name: 1 for tar in kept()
    }
    assert not kept("*.partial")


def test_damage_that_stays_is_named_and_nothing_is_kept(local: Manifest, served: Served) -> None:
    manifest = streamed(served)
    served.faults, served.lasting = {"00000.tar": ["wrong"]}, True
    with pytest.raises(
        InputError,
        match=r"pack/00000\.tar cannot be fetched, .* in 6 attempts .*"
        r"SHA-256 is not the recorded one\); copy the pack there again",
    ):
        read_bytes(manifest.files()[0])
    assert not kept()
    assert not kept("*.partial")
    served.faults = {}
    assert contents(manifest) == contents(local)


def test_what_will_not_pass_is_refused_at_once(local: Manifest, served: Served) -> None:
    with pytest.raises(InputError, match=r"There is no .*/other/pack\.json .*correct the address"):
        root_folder(f"{served.address}/other")
    served.faults, served.lasting = {"pack.json": ["403"]}, True
    with pytest.raises(InputError, match=r"no permission to read .*; log in, or set"):
        root_folder(f"{served.address}/pack")
    served.faults = {}
    (local.root / "00001.tar").write_bytes(b"short")
    with pytest.raises(InputError, match=r"00001\.tar has 5 instead of \d+ bytes; copy"):
        root_folder(f"{served.address}/pack")
    (local.root / "00001.tar").unlink()
    with pytest.raises(InputError, match=r"There is no .*/pack/00001\.tar .*complete the copy"):
        root_folder(f"{served.address}/pack")
    for text in (
        "no JSON",
        "[]",
        '{"tars": -1}',
        '{"tars": 1, "files": {"../x": {}}}',
        '{"tars": 1, "files": {"../x": {"bytes": 1, "sha256": null}}}',
        '{"tars": 100001}',
    ):
        (local.root / "pack.json").write_text(text)
        with pytest.raises(InputError, match=r"pack\.json"):
            root_folder(f"{served.address}/pack")
    with pytest.raises(
        InputError, match=r"http://127\.0\.0\.1:9/pack.* cannot be fetched.*network"
    ):
        root_folder("http://127.0.0.1:9/pack")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *(({name: {"bytes": 5, "sha256": None}}, rf"'files' has '{name}', no file of a pack")
          for name in ("../x.tar", "lock", "remote.json", "pack.json", "00000.lock", ".1.tar")),
        *(({name: None}, rf"'files' lacks {name}")
          for name in ("pack.parquet", "manifest.parquet", "00001.tar")),
        ({"00000.tar": {"bytes": 5, "sha256": "AB" * 32}}, r"'files\.00000\.tar\.sha.*pattern"),
        ({"00000.tar": {"bytes": 5, "sha256": "x"}}, r"'files\.00000\.tar\.sha.*pattern"),
    ],
)  # fmt: skip
def test_a_record_of_other_files_is_refused_before_they_are_fetched(
    change: dict[str, Any], why: str, local: Manifest, served: Served
) -> None:
    record = json.loads((local.root / "pack.json").read_text())
    files = {name: file for name, file in (record["files"] | change).items() if file is not None}
    (local.root / "pack.json").write_text(json.dumps(record | {"files": files}))
    with pytest.raises(InputError, match=rf"/pack/pack\.json is damaged: {why}"):
        root_folder(f"{served.address}/pack")
    assert {*served.sent} == {"pack.json"}


def write_places(local: Manifest, **columns: pl.Expr) -> None:
    """Changes the table of frames of a pack, with the record of it."""
    table, mark = local.root / pack.PLACES, local.root / "pack.json"
    pl.read_parquet(table).with_columns(**columns).write_parquet(table)
    record = json.loads(mark.read_text())
    record["files"][table.name] = {"bytes": table.stat().st_size, "sha256": file_digest(table)}
    mark.write_text(json.dumps(record))


def test_frames_in_a_tar_that_is_not_listed_are_refused(local: Manifest, served: Served) -> None:
    last = pl.col("tar").replace(
        {pl.read_parquet(local.root / pack.PLACES)["tar"][-1]: "77777.tar"}
    )
    write_places(local, tar=last)
    manifest = streamed(served)
    for read in (Manifest.files, read_contents, Manifest.validate):
        with pytest.raises(InputError, match=r"damaged: it places frames in 77777\.tar"):
            read(manifest)


def test_frames_that_are_not_those_that_the_table_declares_are_refused(
    local: Manifest, served: Served
) -> None:
    write_places(local, content=pl.lit(7, pl.UInt64))
    manifest = streamed(served)
    frames = FrameDataset(manifest, ["real", "swap"], 24)
    for reader in (frames, StoredFrames(frames), ReadableFrames(frames)):
        with pytest.raises(InputError, match=r"/pack/00000\.tar does not hold the bytes, from 512"):
            reader[0]
    with pytest.raises(InputError, match=r"00000\.tar does not hold"):
        stored_content(manifest.files()[0])
    assert not kept()


def test_an_address_is_read_whatever_the_case_of_its_protocol(
    local: Manifest, served: Served
) -> None:
    address = served.address.replace("http://", "HTTP://")
    assert contents(stored(root_folder(f"{address}/pack/"))) == contents(local)


def test_protocols_that_cannot_be_read_name_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^s4:// is no known protocol; give a folder"):
        root_folder("s4://bucket/pack")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"needs a package that is not .*; pip install gcsfs\.$"):
        root_folder("gs://bucket/pack")


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIAKANARIENVOGEL123:geheim@bucket/pack",
        "https://user:kanarienvogel@host/pack",
        "https://kanarienvogel@host/pack",
        "https://host/pack?token=kanarienvogel",
        "https://host/pack?X-Amz-Signature=kanarienvogel",
        "https://host/pack#kanarienvogel",
        "simplecache::s3://kanarienvogel/pack",
        "https://host/hf_kanarienvogelkanarienvogelkanarienvogel/pack",
    ],
)
def test_an_address_with_a_secret_is_refused_without_it(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(InputError, match=r"credentials where the library") as refused:
        root_folder(address)
    monkeypatch.chdir(tmp_path)
    assert main(["index", "data=folder", f'data.root="{address}"', "out=x.parquet"]) == 2
    said = str(refused.value) + "".join(capsys.readouterr())
    said += "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert "kanarienvogel" not in said.lower()


def test_a_pack_of_an_earlier_version_is_compared_by_length(
    local: Manifest, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    record = json.loads((local.root / "pack.json").read_text())
    del record["files"]
    (local.root / "pack.json").write_text(json.dumps(record))
    places = pl.read_parquet(local.root / pack.PLACES)
    places.drop("content").write_parquet(local.root / pack.PLACES)
    served.faults = {"00002.tar": ["short"]}
    with caplog.at_level(logging.WARNING):
        manifest = streamed(served)
    assert "no digests" in caplog.text
    assert contents(manifest) == contents(local)
    assert read_contents(manifest).equals(read_contents(local))


def test_the_contents_of_frames_are_known_without_their_tars(
    local: Manifest, served: Served
) -> None:
    manifest = streamed(served)
    assert read_contents(manifest).equals(read_contents(local))
    assert not kept()


def test_another_pack_at_the_address_is_another_folder(
    local: Manifest, served: Served, tmp_path: Path
) -> None:
    before = streamed(served).root
    files = local.where(split="train")
    expected = contents(files)
    pack.write_pack(files.table, files.files(), tmp_path / "part", 13_000)
    local.root.rename(tmp_path / "old")
    (tmp_path / "part").rename(local.root)
    mirror.cache_clear()
    after = streamed(served)
    assert after.root != before
    assert contents(after) == expected


def test_the_cache_stays_within_its_limit(
    local: Manifest, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, limit = streamed(served), 2 * largest(local)
    monkeypatch.setenv("FMSD_PACK_CACHE", str(limit))
    other = mirrors.root_folder(local.root.as_uri())  # a second pack in the same cache
    whole, places = contents(local), manifest.files() + stored(other).files()
    for row in np.random.default_rng(0).permutation(len(places)):
        assert read_bytes(places[row]) == whole[row % len(whole)]
        assert sum(tar.stat().st_size for tar in kept()) <= limit
    first, second, third = (f"{manifest.root}/0000{number}.tar#0+10" for number in range(3))
    for tar in (first, second, first, third):  # the second was read longest ago
        read_bytes(tar)
    assert [tar.name for tar in kept()] == ["00000.tar", "00002.tar"]
    monkeypatch.setenv("FMSD_PACK_CACHE", "1K")
    with pytest.raises(InputError, match=r"cache of packs holds .*; pack with a smaller size="):
        read_bytes(second)
    monkeypatch.setenv("FMSD_PACK_CACHE", "some")
    with pytest.raises(InputError, match=r"FMSD_PACK_CACHE=some is not a size"):
        read_bytes(second)


def _read_all(places: list[str], seed: int) -> list[int]:
    first = seed * len(places) // 3
    return [hash(read_bytes(place)) for place in (places[first:] + places[:first])]


def without_locks(patch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks, as some of clusters."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    patch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("locks", [True, False])
def test_processes_share_a_small_cache(
    locks: bool, local: Manifest, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        without_locks(monkeypatch)
    places = streamed(served).files()
    monkeypatch.setenv("FMSD_PACK_CACHE", str(2 * largest(local)))
    with multiprocessing.get_context("fork").Pool(3) as pool:
        read = pool.starmap(_read_all, [(places, seed) for seed in range(3)], chunksize=1)
    whole = [hash(data) for data in contents(local)]
    assert read == [whole[first:] + whole[:first] for first in (0, 8, 16)]
    assert not kept("*.partial")
    if locks:
        assert sum(tar.stat().st_size for tar in kept()) <= 2 * largest(local)


@pytest.mark.parametrize("locks", [True, False])
def test_what_is_being_fetched_stays_and_what_was_left_behind_goes(
    locks: bool, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        without_locks(monkeypatch)
    manifest = streamed(served)
    young = [manifest.root / name for name in (".remote.json.ab.partial", "00001.ab.partial")]
    old = [manifest.root / name for name in (".remote.json.cd.partial", "00001.cd.partial")]
    for partial in young + old:
        partial.touch()
    for partial in old:
        os.utime(partial, (0, 0))
    with open_locked(manifest.root / "00001.lock", 0):
        read_bytes(manifest.files()[0])
        assert kept("*.partial") == sorted(young + (old[1:] if locks else []))
    for tar in kept():
        tar.unlink()
    read_bytes(manifest.files()[0])
    assert kept("*.partial") == (young[:1] if locks else young)


def test_a_kill_leaves_nothing_half_written(local: Manifest, served: Served) -> None:
    manifest = streamed(served)
    served.faults = {f"{tar:05d}.tar": ["stall"] for tar in range(9)}
    context, places = multiprocessing.get_context("fork"), manifest.files()
    process = context.Process(target=_read_all, args=(places, 0))
    process.start()
    while not kept("*.partial"):
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert not kept()
    served.faults = {}
    assert contents(manifest) == contents(local)
    assert not kept("*.partial")


def _write_at_most(places: list[str], queue: "multiprocessing.Queue[str]") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
    try:
        read_bytes(places[0])
    except InputError as error:
        queue.put(str(error))


def test_a_full_disk_is_named(served: Served) -> None:
    places, context = streamed(served).files(), multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_write_at_most, args=(places, queue))
    process.start()
    said = queue.get(timeout=30)
    process.join()
    assert "cannot take 00000.tar (File too large); make room there" in said
    assert not kept()


def order_of(manifest: Manifest, buffer: int = 2, size: int = 5) -> Shards:
    order = make_order(manifest, "shards", "manipulation", size, 7, buffer)
    assert isinstance(order, Shards)
    return order


def test_an_epoch_shows_each_row_once_and_each_tar_in_one_block(local: Manifest) -> None:
    order = order_of(local)
    epochs = [order(epoch)[0] for epoch in range(3)]
    for epoch, rows in enumerate(epochs):
        assert sorted(rows) == list(range(len(local)))
        blocks = order.blocks(epoch)[order.tar[rows]]
        assert (np.diff(blocks) >= 0).all()
        assert all(len({*order.tar[rows[blocks == block]]}) <= 2 for block in {*blocks})
        assert any((np.diff(order.tar[rows[blocks == block]]) < 0).any() for block in {*blocks})
    assert not np.array_equal(epochs[0], epochs[1])
    assert order.digest() != order_of(local, 3).digest()
    shares = [[*ProcessBatches(order, rank, 2, epoch=1)] for rank in range(2)]
    for whole, one, other in zip(ProcessBatches(order, epoch=1), *shares, strict=True):
        assert sorted(whole) == sorted(one + [place for place in other if place not in one])
    assert [*ProcessBatches(order, epoch=1, start=2)] == [*ProcessBatches(order, epoch=1)][2:]


def test_plain_files_have_no_order_of_tars(tree: Path, local: Manifest) -> None:
    with pytest.raises(InputError, match=r"needs the tars of a pack, and .*tree is none; give"):
        order_of(Manifest(local.table, tree))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_reads_each_tar_once_and_shows_what_files_show(
    workers: int, local: Manifest, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_PACK_CACHE", str(6 * largest(local)))
    manifest = streamed(served)
    # loaders hold fewer frames ahead than a block has
    orders = [order_of(manifest, size=1), order_of(local, size=1)]
    loaders = [
        DataLoader(
            FrameDataset(each, ["real", "swap"], 24, "light", seed=3, ahead=ahead),
            batch_sampler=ProcessBatches(order),
            num_workers=number,
        )
        for each, order, number, ahead in (
            (manifest, orders[0], workers, FetchAhead(orders[0])),
            (local, orders[1], 0, None),
        )
    ]
    for ours, theirs in zip(*loaders, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    for thread in threading.enumerate():
        if thread.name.startswith("Thread-") and "_fetch" in thread.name:
            thread.join()
    sent = {name: times for name, times in served.sent.items() if name.endswith(".tar")}
    assert len(sent) == len({*orders[0].tars})
    # the first block of the next epoch is fetched while the last one is read
    assert sum(sent.values()) <= len(sent) + 2


def test_an_order_that_needs_more_tars_than_the_cache_holds_is_refused(
    local: Manifest, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = streamed(served)
    monkeypatch.setenv("FMSD_PACK_CACHE", str(5 * largest(local)))
    for batches in ("shuffle", "balanced"):
        make_order(local, batches, "manipulation", 8, 0)
        with pytest.raises(InputError, match=r"tars of the pack are read in turn.*batches=shards"):
            make_order(manifest, batches, "manipulation", 8, 0)
    with pytest.raises(InputError, match=r"6 tars .*; give a smaller data\.buffer, or set FMSD_P"):
        order_of(manifest)
    order_of(manifest, 1)


@pytest.mark.slow
def test_a_killed_training_from_an_address_ends_as_one_from_a_folder(tmp_path: Path) -> None:
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=6)
    options = ("method=lora", "data.batches=shards", "data.buffer=2", "save_every=1")
    packed = fmsd_here(
        "pack", "data=folder", "data.root=data", "out=served/pack", "size=20K", cwd=tmp_path
    )
    assert packed.returncode == 0, packed.stderr
    local = fmsd_here(
        "train", *TINY, *options, "data.root=served/pack", "hydra.run.dir=whole", cwd=tmp_path
    )
    assert local.returncode == 0, local.stderr
    with serving(tmp_path / "served") as place:
        killed = start(
            tmp_path, *options, f"data.root={place.address}/pack", "hydra.run.dir=killed"
        )
        curves, deadline = tmp_path / "killed" / "logs" / "metrics.csv", time.monotonic() + 100
        while time.monotonic() < deadline and killed.poll() is None:
            if curves.exists() and len(curves.read_text().splitlines()) > 3:
                break
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        done = fmsd_here("train", "resume=killed", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "Going on from" in done.stderr
    for name in (
        "results.csv",
        *(
            f"predictions/{file.name}"
            for file in (tmp_path / "whole" / "predictions").glob("*.parquet")
        ),
    ):
        ours, theirs = (tmp_path / run / name for run in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert f"root: {place.address}/pack" in (tmp_path / "killed" / "config.yaml").read_text()
    assert "batches: shards" in (tmp_path / "killed" / "config.yaml").read_text()
