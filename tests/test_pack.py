"""A packed dataset is the dataset: the same rows, the same bytes, in fewer files."""

import json
import multiprocessing
import resource
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import DataLoader

from fmsd.checks import parse_size
from fmsd.cli.main import main
from fmsd.data import pack
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame
from fmsd.data.loading.dataset import FrameDataset
from fmsd.data.loading.image import read_bytes, read_image
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.data.prepared_folder import prepared_manifest
from fmsd.data.selected_frames import load_or_scan
from fmsd.data.sources import folder
from fmsd.errors import InputError
from fmsd.types import Frames
from tests.conftest import write_image


@pytest.fixture
def files(tree: Path) -> Manifest:
    """24 PNG files of two domains, and a JPEG with dots and capitals in its name."""
    write_image(tree / "train" / "real" / "train0" / "v1.5 é.JPG", 99)
    splits = {"train": "train", "val": "val", "test": "test"}
    return from_entries(
        folder.scan(tree, "tree", "{split}/{domain}/{video}", splits, ["real"]), tree
    )  # pyright: ignore[reportArgumentType]


@pytest.fixture
def packed(files: Manifest, tmp_path: Path) -> Manifest:
    """The same in tars of about three frames."""
    assert pack.write_pack(files.table, files.files(), tmp_path / "packed", 13_000) > 5
    manifest = prepared_manifest(tmp_path / "packed")
    assert manifest is not None
    return manifest


def test_a_pack_has_the_same_rows_digest_and_bytes(files: Manifest, packed: Manifest) -> None:
    assert packed.table.equals(files.table)
    assert packed.digest() == files.digest()
    assert [read_bytes(place) for place in packed.files()] == [
        Path(file).read_bytes() for file in files.files()
    ]
    assert all(place.startswith(f"{packed.root}/0000") for place in packed.files())
    assert packed.validate() is packed


def test_a_part_of_a_pack_finds_its_own_frames_in_any_order(
    files: Manifest, packed: Manifest
) -> None:
    for part, whole in (
        (packed.where(split="test", domain="swap"), files.where(split="test", domain="swap")),
        (packed.sample_frames(1), files.sample_frames(1)),
    ):
        assert [read_bytes(place) for place in part.files()] == [
            Path(file).read_bytes() for file in whole.files()
        ]
    order = np.random.default_rng(0).permutation(len(files))
    for row in order:
        assert np.array_equal(read_image(packed.files()[row]), read_image(files.files()[row]))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_tars_are_those_from_files(
    files: Manifest, packed: Manifest, workers: int
) -> None:
    def batches(manifest: Manifest) -> Iterator[Frames]:
        return iter(
            DataLoader(
                FrameDataset(manifest, ["real", "swap"], 24, "light", seed=3),
                batch_size=5,
                num_workers=workers,
            )
        )

    for one, other in zip(batches(files), batches(packed), strict=True):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(one, other, strict=True))


def test_without_augmentation_a_frame_is_the_image_channel_by_channel(files: Manifest) -> None:
    dataset = FrameDataset(files, ["real", "swap"], 32)
    for row in range(0, len(files), 5):
        assert np.array_equal(
            dataset[row].image.numpy(), read_image(files.files()[row]).transpose(2, 0, 1)
        )


def _digest(place: str) -> int:
    return hash(read_bytes(place))


def test_processes_that_are_forked_later_share_open_tars(packed: Manifest) -> None:
    places = packed.files() * 20
    expected = [_digest(place) for place in places]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_digest, places, chunksize=7) == expected


def test_tars_keep_the_conventions_of_webdataset(files: Manifest, packed: Manifest) -> None:
    seen = []
    for tar in sorted(packed.root.glob("*.tar")):
        with tarfile.open(tar) as opened:
            members = opened.getmembers()
            names = [member.name.split(".") for member in members]
            assert all(len(parts) == 2 for parts in names)  # a key ends at the first dot
            assert [key for key, _ in names[::2]] == [
                key for key, _ in names[1::2]
            ]  # neighbours are one sample
            for image, about in zip(members[::2], members[1::2], strict=True):
                row = json.load(opened.extractfile(about))  # pyright: ignore[reportArgumentType]
                data = opened.extractfile(image).read()  # pyright: ignore[reportOptionalMemberAccess]
                assert data == (files.root / row["path"]).read_bytes()
                assert about.name.endswith(".json")
                assert image.name.endswith(Path(row["path"]).suffix.lower())
                seen.append(row)
    assert seen == files.table.to_dicts()


def test_a_tar_ends_with_the_frame_that_fills_it(packed: Manifest) -> None:
    where = pl.read_parquet(packed.root / pack.PLACES)
    assert where["path"].equals(packed.table["path"])
    assert (where["offset"] - 512 < 13_000).all()
    ends = [
        (tar, part["offset"][-1] + part["size"][-1])
        for (tar,), part in where.group_by("tar", maintain_order=True)
    ]
    assert [tar for tar, _ in ends] == sorted(path.name for path in packed.root.glob("*.tar"))
    assert all(
        end + 3 * 512 >= 13_000 for _, end in ends[:-1]
    )  # what its row of the manifest may add


def test_a_pack_can_be_packed_again(packed: Manifest, tmp_path: Path) -> None:
    assert pack.write_pack(packed.table, packed.files(), tmp_path / "one", 2**30) == 1
    again = read_manifest(tmp_path / "one" / "manifest.parquet", tmp_path / "one")
    assert again.digest() == packed.digest()
    assert [read_bytes(place) for place in again.files()] == [
        read_bytes(place) for place in packed.files()
    ]


def test_damage_to_a_pack_is_named(packed: Manifest, tmp_path: Path) -> None:
    stranger = Manifest(
        packed.table.with_columns(path=pl.concat_str("path", pl.lit("x"))), packed.root
    )
    with pytest.raises(InputError, match=r"does not hold .*x; pack the dataset again"):
        stranger.files()
    first, second, *_ = sorted(packed.root.glob("*.tar"))
    first.write_bytes(first.read_bytes()[:4096])
    with pytest.raises(
        InputError,
        match=r"lie in tars that are missing or cut off under .*packed; complete the copy",
    ):
        packed.validate()
    with pytest.raises(InputError, match=r"00000\.tar#\d+\+\d+ cannot be read"):
        [read_bytes(place) for place in packed.files()]
    packed.where(split="val").validate()
    second.unlink()
    with pytest.raises(InputError, match=r"lie in tars that are missing"):
        packed.validate()
    (packed.root / pack.PLACES).unlink()
    with pytest.raises(InputError, match=r"holds a pack without pack\.parquet; complete the copy"):
        packed.files()


PERMUTED: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "places of two frames": lambda places: places.with_columns(
        places.select("tar", "offset", "size")[[1, 0, *range(2, places.height)]]
    ),
    "all places": lambda places: places.with_columns(
        places.select("tar", "offset", "size").reverse()
    ),
    "names of the first and the last frame": lambda places: places.with_columns(
        path=places["path"][[places.height - 1, *range(1, places.height - 1), 0]]
    ),
    "names of two frames": lambda places: places.with_columns(
        path=places["path"][[0, 2, 1, *range(3, places.height)]]
    ),
    "all names": lambda places: places.with_columns(path=places["path"].reverse()),
    "tars": lambda places: places.with_columns(
        tar=places["tar"].replace({"00000.tar": "00001.tar", "00001.tar": "00000.tar"})
    ),
}


@pytest.mark.parametrize("change", PERMUTED.values(), ids=list(PERMUTED))
def test_no_frame_gets_the_pixels_of_another(
    change: Callable[[pl.DataFrame], pl.DataFrame], packed: Manifest
) -> None:
    table = packed.root / pack.PLACES
    places = pl.read_parquet(table)
    assert places["tar"].n_unique() > 2
    change(places).write_parquet(table)
    with pytest.raises(InputError, match=r"pack\.parquet .*; copy the pack again, or pack the"):
        packed.files()


def test_exchanged_tars_are_noticed(packed: Manifest, tmp_path: Path) -> None:
    first, second, *_ = sorted(packed.root.glob("*.tar"))
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    with pytest.raises(InputError, match=r"00000\.tar (do not belong|does not hold)"):
        packed.files()


@pytest.mark.parametrize("tar", ["../x.tar", "/x.tar", "a/../../x.tar", ""])
def test_no_tar_outside_the_pack_is_read(tar: str, packed: Manifest) -> None:
    table = packed.root / pack.PLACES
    pl.read_parquet(table).with_columns(tar=pl.lit(tar)).write_parquet(table)
    with pytest.raises(InputError, match=r"The tar in .*pack\.parquet"):
        packed.files()


@pytest.mark.parametrize("damage", ["missing", "cut", "unreadable"])
def test_a_damaged_image_stops_packing_with_its_name_and_leaves_nothing(
    files: Manifest, tmp_path: Path, damage: str
) -> None:
    victim = Path(files.files()[20])
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:500])
    else:
        victim.unlink()
    if damage == "unreadable":
        victim.mkdir()
    with pytest.raises(InputError, match=rf"The image {victim} cannot be read"):
        pack.write_pack(files.table, files.files(), tmp_path / "out", 13_000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_without_room_is_one_sentence_and_leaves_nothing(
    files: Manifest, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))  # no file may grow beyond
    try:
        with pytest.raises(InputError, match=r"out cannot be written \(.*\); make room there"):
            pack.write_pack(files.table, files.files(), tmp_path / "out", 2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "out").iterdir()) == []
    assert pack.write_pack(files.table, files.files(), tmp_path / "out", 2**30) == 1


def test_nothing_is_replaced(files: Manifest, packed: Manifest, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in packed.root.iterdir()}
    with pytest.raises(InputError, match=r"packed holds a pack already; choose another folder"):
        pack.write_pack(files.table, files.files(), packed.root, 2**30)
    assert {path: path.read_bytes() for path in packed.root.iterdir()} == before
    for held in (files.root, Path(files.files()[0])):
        with pytest.raises(InputError, match=r"is not an empty folder; choose another"):
            pack.write_pack(files.table, files.files(), held, 2**30)


def test_the_same_frames_give_the_same_tars(files: Manifest, tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack.write_pack(files.table, files.files(), tmp_path / name, 20_000)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").glob("*.tar")} == {
        path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.tar")
    }


def test_the_verb_packs_what_training_then_reads_by_itself(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "packed"
    assert main(["pack", "data=folder", f"data.root={tree}", f"out={out}", "size=20K"]) == 0
    assert "24 frames in" in capsys.readouterr().out
    with pytest.raises(AssertionError):  # the source is not asked
        load_or_scan(_never, tree)
    manifest = load_or_scan(_never, out)
    assert (
        main(["index", "data=folder", f"data.root={tree}", f"out={tmp_path / 'index.parquet'}"])
        == 0
    )
    assert manifest.table.equals(read_manifest(tmp_path / "index.parquet", tree).table)
    capsys.readouterr()
    assert main(["pack", "data=folder", f"data.root={tree}", f"out={out}"]) == 2
    assert "holds a pack already" in capsys.readouterr().err
    assert (
        main(
            [
                "pack",
                "data=folder",
                f"data.root={tree}",
                "data.test=[folder,elsewhere]",
                f"out={tmp_path / 'other'}",
            ]
        )
        == 0
    )
    assert "other roots: elsewhere; pack each" in capsys.readouterr().out


def _never(root: Path) -> Iterator[Frame]:
    raise AssertionError(root)


def test_sizes() -> None:
    assert [parse_size(size) for size in (7, "7", "7K", "500M", "1G", "2T")] == [
        7,
        7,
        7 * 1024,
        500 * 1024**2,
        1024**3,
        2 * 1024**4,
    ]
    for wrong in ("0", "1.5G", "G", "1GB", "-1", 0, "1g "):
        with pytest.raises(InputError, match=r"is not a size; give bytes, or a number like 500M"):
            parse_size(wrong)
