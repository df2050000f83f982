"""The digest of a frame's file: of its bytes alone, however it is read and whatever its name."""

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import xxhash

from fmsd.data.content import changed_files, content_digest, pixels_digest
from fmsd.data.content_files import read_contents
from fmsd.data.loading.dataset import signed
from fmsd.data.pack import write_pack
from fmsd.engine.predictions import gather_predictions, with_logits
from fmsd.engine.scorer import score_batch
from fmsd.errors import InputError
from tests.conftest import grow_tree, write_image
from tests.test_engine import module


def scored(root: Path, **loader: object) -> pl.DataFrame:
    """Predictions of the test split of a tree, by a detector of one constant."""
    data = module(root, **loader)
    batches = [
        score_batch(lambda image: torch.zeros(len(image)), batch)
        for batch in data.test_loader("mine")
    ]
    return with_logits(data.tests["mine"], gather_predictions(batches), "32-true")


def test_the_digest_depends_on_the_bytes_alone_and_not_on_workers_or_batches(
    tree: Path, tmp_path: Path
) -> None:
    one = scored(tree)
    expected = [xxhash.xxh3_64_intdigest((tree / path).read_bytes()) for path in one["path"]]
    assert one["content"].to_list() == expected
    assert len(set(expected)) == len(expected)
    for loader in ({"batch_size": 1}, {"batch_size": 7, "workers": 2}, {"size": 16}):
        assert (
            scored(tree, **loader).select("path", "content").equals(one.select("path", "content"))
        )
    whole = module(tree).listed
    write_pack(whole.table, whole.files(), tmp_path / "packed", 13_000)
    packed = read_contents(module(tmp_path / "packed").tests["mine"])
    assert packed.equals(read_contents(module(tree).tests["mine"]))
    assert packed["content"].to_list() == expected
    assert packed["size"].to_list() == [(tree / path).stat().st_size for path in one["path"]]


@pytest.mark.parametrize("digest", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_digest_keeps_its_bits_as_a_signed_integer(digest: int) -> None:
    assert -(2**63) <= signed(digest) < 2**63
    assert signed(digest) % 2**64 == digest


def test_a_dataset_has_one_digest_that_a_changed_or_exchanged_file_changes(
    tree: Path, tmp_path: Path
) -> None:
    before = scored(tree)
    own = pixels_digest(before)
    assert pixels_digest(before.sample(fraction=1, shuffle=True, seed=1)) == own
    copy = shutil.copytree(tree, tmp_path / "copy")
    assert pixels_digest(scored(copy)) == own
    assert changed_files(before, scored(copy)) == []
    one, two = (copy / "test" / "swap" / f"test{video}" / "0.png" for video in (0, 1))
    one.rename(tmp_path / "kept.png")
    two.rename(one)
    (tmp_path / "kept.png").rename(two)
    exchanged = scored(copy)
    assert pixels_digest(exchanged) != own
    assert changed_files(before, exchanged) == [
        "test/swap/test0/0.png",
        "test/swap/test1/0.png",
    ]
    assert pixels_digest(before.drop("content")) is None


def test_one_byte_and_a_length_are_seen() -> None:
    assert len({content_digest(data) for data in (b"", b"\0", b"\0\0", b"\1")}) == 4


def test_a_file_that_cannot_be_read_is_named(tree: Path) -> None:
    manifest = module(tree).tests["mine"]
    (tree / manifest.table["path"][3]).unlink()
    with pytest.raises(InputError, match=manifest.table["path"][3]):
        read_contents(manifest)


def test_frames_listed_twice_are_read_once(tmp_path: Path) -> None:
    data = module(grow_tree(tmp_path / "tree"))
    both = data.splits.both
    twice = type(both)(pl.concat([both.table, both.table]), both.root)
    assert read_contents(twice).equals(read_contents(both))
    write_image(tmp_path / "tree" / both.table["path"][0], 1000)
    assert not read_contents(twice).equals(read_contents(data.tests["mine"]))
