from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fmsd.data.description import describe_datasets
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame, Video, video_id
from fmsd.data.manifest import Manifest, read_manifest
from fmsd.errors import InputError
from tests.conftest import write_image


def frames(
    dataset: str = "a", videos: int = 4, length: int = 5, root: Path = Path("/data")
) -> list[Frame]:
    """Videos of one real and one fake domain, the first half in train."""
    found = []
    for domain, label in (("real", 0), ("swap", 1)):
        for video in range(videos):
            for index in range(length):
                found.append(
                    Frame(
                        path=root / dataset / domain / f"v{video}" / f"{index}.png",
                        label=label,
                        dataset=dataset,
                        domain=domain,
                        video=video_id(dataset, domain, "c23", f"v{video}"),
                        index=index,
                        split="train" if video < videos // 2 else "test",
                        compression="c23",
                    )
                )
    return found


@pytest.fixture
def manifest() -> Manifest:
    return from_entries(frames(), Path("/data"))


def changed(manifest: Manifest, **columns: pl.Expr) -> Manifest:
    return replace(manifest, table=manifest.table.with_columns(**columns))


def test_equal_folder_names_in_two_manipulations_stay_two_videos(manifest: Manifest) -> None:
    assert manifest.videos == 8
    assert set(manifest.table["video"]) == {
        f"a/{domain}/c23/v{video}" for domain in ("real", "swap") for video in range(4)
    }
    assert video_id("a", "swap", "", "v0") == "a/swap/v0"


def test_paths_are_relative_and_the_digest_knows_neither_root_nor_order(manifest: Manifest) -> None:
    assert manifest.table["path"][0] == "a/real/v0/0.png"
    assert manifest.files()[0] == "/data/a/real/v0/0.png"
    elsewhere = from_entries(reversed(frames(root=Path("/scratch"))), Path("/scratch"))
    assert elsewhere.digest() == manifest.digest()
    assert from_entries(frames(length=4), Path("/data")).digest() != manifest.digest()
    assert changed(manifest, label=1 - pl.col("label")).digest() != manifest.digest()


def test_round_trip_and_atomic_write(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path / "deep" / "manifest.parquet")
    again = read_manifest(tmp_path / "deep" / "manifest.parquet", manifest.root)
    assert again.table.equals(manifest.table)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["manifest.parquet"]
    with pytest.raises(InputError, match=r"no manifest .*fmsd index"):
        read_manifest(tmp_path / "none.parquet", manifest.root)
    manifest.table.drop("video").write_parquet(tmp_path / "short.parquet")
    with pytest.raises(InputError, match=r"lacks the columns video"):
        read_manifest(tmp_path / "short.parquet", manifest.root)


def test_where_keeps_the_rows_with_the_given_values(manifest: Manifest) -> None:
    assert len(manifest.where(split="train", domain="swap")) == 10
    both = from_entries([*frames(), *frames("b", root=Path("/other"))], Path("/data"))
    assert len(both.where(dataset=["a", "b"])) == 2 * len(both.where(dataset="b"))
    assert "/other/b/real/v0/0.png" in both.files()
    assert both.where(dataset="a").videos == manifest.videos


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (1, [0]),
        (2, [0, 4]),
        (3, [0, 2, 4]),
        (5, [0, 1, 2, 3, 4]),
        (9, [0, 1, 2, 3, 4]),
        (None, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_are_spread_evenly_over_each_video(
    manifest: Manifest, asked: int | None, kept: list[int]
) -> None:
    spread = manifest.sample_frames(asked)
    assert spread.videos == manifest.videos
    for (_,), rows in spread.table.group_by("video"):
        assert rows["index"].sort().to_list() == kept


def test_spread_counts_frames_not_their_numbers(manifest: Manifest) -> None:
    numbered = changed(manifest, index=pl.col("index") * 100 + 7)
    assert set(numbered.sample_frames(2).table["index"]) == {7, 407}


def test_first_limits_videos_per_split_and_domain(manifest: Manifest) -> None:
    few = manifest.first(1)
    assert few.videos == 4
    assert len(few) == 20


def paired(dataset: str = "ff", sources: int = 20) -> list[Frame]:
    """Originals `000` and their manipulations `000_007`, all in train."""
    found = []
    for domain, label in (("real", 0), ("swap", 1)):
        for source in range(sources):
            name = f"{source:03d}" if label == 0 else f"{source:03d}_{(source + 7) % sources:03d}"
            found.append(
                Frame(
                    Path(f"/data/{dataset}/{domain}/{name}/0.png"),
                    label,
                    dataset,
                    domain,
                    video_id(dataset, domain, "", name),
                    0,
                    "train",
                )
            )
    return found


def test_hold_out_moves_a_source_with_all_its_manipulations() -> None:
    manifest = from_entries(paired() + paired("other", 40), Path("/data"))
    held = manifest.hold_out(0.1)
    moved = held.where(split="val").table
    for dataset, count in (("ff", 2), ("other", 4)):
        part = moved.filter(dataset=dataset)
        sources = {
            domain: {video.rpartition("/")[2][:3] for video in part.filter(domain=domain)["video"]}
            for domain in ("real", "swap")
        }
        assert sources["real"] == sources["swap"]
        assert len(sources["real"]) == count
    shuffled = replace(
        manifest, table=manifest.table.sample(fraction=1, shuffle=True, seed=1)
    ).hold_out(0.1)
    assert set(shuffled.where(split="val").table["video"]) == set(moved["video"])
    assert len(held) == len(manifest)


def test_hold_out_keeps_both_classes_where_names_are_unrelated() -> None:
    unrelated = [
        replace(frame, video=f"a/{frame.domain}/{frame.domain}-{number}")
        for number, frame in enumerate(paired())
    ]
    moved = from_entries(unrelated, Path("/data")).hold_out(0.1).where(split="val")
    assert moved.table.group_by("label").len()["len"].to_list() == [2, 2]


def test_hold_out_leaves_the_other_splits_alone(manifest: Manifest) -> None:
    held = manifest.hold_out(0.1)
    assert held.where(split="test").table.equals(manifest.where(split="test").table)
    assert held.where(split="val").videos == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "label": pl.when(pl.col("index") == 0)
                .then(1 - pl.col("label"))
                .otherwise("label")
                .cast(pl.Int8)
            },
            r"domain values of row 0 \(a/real/v0/0\.png, real\).*do not fit their label",
        ),
        (
            {"label": pl.lit(2, pl.Int8)},
            r"label values of row 0 \(a/real/v0/0\.png, 2\).* neither 0 \(real\) nor 1",
        ),
        (
            {"split": pl.when(pl.col("index") == 3).then(pl.lit("val")).otherwise("split")},
            r"video values of row 0 \(a/real/v0/0\.png, a/real/c23/v0\).*more than one split",
        ),
        (
            {"split": pl.lit("dev")},
            r"split values of row 0 \(a/real/v0/0\.png, dev\).* none of train, val, test",
        ),
        (
            {"path": pl.lit("same.png")},
            r"path values of row 0 \(same\.png\), row 1 .* and 37 more are listed more than once",
        ),
        (
            {
                "domain": pl.when((pl.col("label") == 1) & (pl.col("index") == 0))
                .then(pl.lit("other"))
                .otherwise("domain")
            },
            r"more than one label, domain, dataset or compression",
        ),
        (
            {"video": pl.lit(None, pl.String)},
            r"cell values of row 0 \(a/real/v0/0\.png, empty\).* and 37 more have no value",
        ),
        (
            {
                "compression": pl.when(pl.col("index") == 1)
                .then(pl.lit("c40"))
                .otherwise("compression")
            },
            r"video values of row 0 .*dataset or compression",
        ),
        ({"index": pl.lit(0, pl.Int32)}, r"index values of row 0 .* come twice in a video"),
    ],
)
def test_validate_names_the_rows_and_the_remedy(
    manifest: Manifest, change: dict[str, pl.Expr], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        changed(manifest, **change).validate(files=False)


def test_validate_checks_that_files_exist(tmp_path: Path) -> None:
    listed = frames(root=tmp_path)
    for seed, frame in enumerate(listed):
        write_image(frame.path, seed, size=4)
    manifest = from_entries(listed, tmp_path)
    assert manifest.validate() is manifest
    listed[7].path.unlink()
    with pytest.raises(InputError, match=r"row 7 \(a/real/v1/2\.png\) do not exist under"):
        manifest.validate()


def test_an_empty_dataset_is_refused(manifest: Manifest) -> None:
    with pytest.raises(InputError, match=r"No frames were found under /data"):
        from_entries([], Path("/data"))
    with pytest.raises(InputError, match=r"has no frames"):
        manifest.where(split="val").validate()


def test_summary_counts_videos_by_split(manifest: Manifest) -> None:
    assert describe_datasets(manifest) == {
        "a": {
            "digest": manifest.digest(),
            "frames": 40,
            "videos": {"train": 4, "val": 0, "test": 4},
        }
    }


def test_some_forgeries_are_kept_with_the_real_frames() -> None:
    both = [
        *frames(),
        *(
            replace(frame, domain="other", video=f"{frame.video}x", path=Path(f"{frame.path}x"))
            for frame in frames()
            if frame.label
        ),
    ]
    manifest = from_entries(both, Path("/data"))
    assert set(manifest.only(["other"]).table["domain"]) == {"real", "other"}
    assert len(manifest.only(["other"])) == len(from_entries(frames(), Path("/data")))
    assert set(manifest.only([]).table["domain"]) == {"real"}
    assert manifest.only().table.equals(manifest.table)


def test_one_compression_is_kept_with_the_frames_that_bear_none() -> None:
    shapes = {"c23": frames("a"), "c40": frames("b"), "": frames("c")}
    several = [
        replace(frame, compression=level) for level, part in shapes.items() for frame in part
    ]
    manifest = from_entries(several, Path("/data"))
    assert set(manifest.only(compression="c40").table["dataset"]) == {"b", "c"}
    assert manifest.only(["swap"], "c40").table.equals(
        manifest.only(["swap"]).only(compression="c40").table
    )


def test_values_of_the_wrong_kind_in_a_written_manifest_are_refused(
    manifest: Manifest, tmp_path: Path
) -> None:
    manifest.table.with_columns(label=pl.lit("fake")).write_parquet(tmp_path / "words.parquet")
    with pytest.raises(InputError, match=r"words\.parquet is .*column .label. holds String"):
        read_manifest(tmp_path / "words.parquet", tmp_path)
    with pytest.raises(InputError, match=r"the index values of .* are below 0"):
        changed(manifest, index=pl.col("index") - 1).validate(files=False)


def test_frames_made_in_two_ways_are_not_mixed(tmp_path: Path) -> None:
    """Whole frames of the real class beside face crops of the fake one would tell the label."""
    entries = []
    for label, domain, kind in ((0, "real", "frames"), (1, "swap", "faces")):
        write_image(tmp_path / domain / kind / "v" / "0.png", 0, 8)
        entries.append(
            Video(None, tmp_path / domain / kind / "v", label, "d", domain, f"d/{domain}/v", "test")
        )
    with pytest.raises(
        InputError,
        match=r"real/frames and .*swap/faces hold frames of d that were made in two ways"
        r".*data\.source\.frames",
    ):
        from_entries(entries, tmp_path)


def test_a_large_scan_is_collected_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = from_entries(frames(), Path("/data"))
    monkeypatch.setattr("fmsd.data.entries.CHUNK", 7)
    assert from_entries(frames(), Path("/data")).table.equals(whole.table)
