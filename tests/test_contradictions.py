"""What says two things about one file is refused, and damaged records are named; nothing is taken
by its place in a list.
"""

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data import frame, prepared_folder
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame, Problem, Video
from fmsd.data.sources import celebdf, deeperforensics, dfdc, dfdcp, extracted, ffpp, folder, table
from fmsd.data.sources.labels import label_from_last_word
from fmsd.errors import InputError
from fmsd.tasks.extract import check_person_ids
from tests.conftest import grow_tree, write_image


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("lines", ["0 {0}\n1 {0}\n", "1 {0}\n0 {0}\n"])
def test_a_video_listed_as_real_and_as_fake_is_refused(tmp_path: Path, lines: str) -> None:
    written(tmp_path / celebdf.TEST_LIST, lines.format("Celeb-real/id1_0001.mp4"))
    with pytest.raises(
        InputError, match=r"lists Celeb-real/id1_0001\.mp4 twice, as real and as fake"
    ):
        celebdf.read_test_list(tmp_path)


@pytest.mark.parametrize("order", [("train", "test"), ("test", "train")])
def test_a_video_in_two_splits_of_the_preview_is_refused(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    names = ("method_A/b.mp4", "method_A\\b.mp4")
    written(
        tmp_path / "dataset.json",
        json.dumps(
            {
                name: {"label": "fake", "set": split}
                for name, split in zip(names, order, strict=True)
            }
        ),
    )
    with pytest.raises(InputError, match=r"lists method_A/b\.mp4 twice, with two labels or splits"):
        list(dfdcp.scan(tmp_path, "dfdcp"))


def test_a_name_in_two_official_lists_is_refused(tmp_path: Path) -> None:
    for split in frame.SPLITS:
        written(tmp_path / "lists" / "splits" / f"{split}.txt", "a_b.mp4\n")
        written(tmp_path / "splits" / f"{split}.json", json.dumps([["000", "003"]]))
    with pytest.raises(InputError, match=r"have a_b in train and in val"):
        list(deeperforensics.scan(tmp_path))
    with pytest.raises(InputError, match=r"have 000 in train and in val"):
        ffpp.read_splits(tmp_path, "splits")


@pytest.mark.parametrize(
    "order", [("test", "train", "val"), ("val", "train", "test"), ("train", "val", "test")]
)
def test_of_several_splits_in_a_benchmark_s_file_the_test_split_counts(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    videos = {"c23": {"000": {"label": "FF-real", "frames": ["a.png"]}}}
    written(tmp_path / "FF.json", json.dumps({"FF": {"FF-real": dict.fromkeys(order, videos)}}))
    assert ffpp.read_splits(tmp_path, "FF.json") == {"000": "test"}


def test_a_stray_clip_hides_no_part_of_a_copy(tmp_path: Path) -> None:
    for split in ("train", "test"):
        part = tmp_path / split / "part_0"
        written(part / "metadata.json", json.dumps({"a.mp4": {"label": "FAKE"}}))
        write_image(part / "frames" / "a" / "0.png", 0)
    written(tmp_path / "train" / "stray.mp4", "x")
    found = list(dfdc.scan(tmp_path, "dfdc"))
    assert sorted(entry.split for entry in found if isinstance(entry, Video)) == ["test", "train"]
    assert [entry.kind for entry in found if isinstance(entry, Problem)].count("unlabelled") == 1


@pytest.mark.parametrize(
    "name", ["not_real", "non-real", "X_never_fake", "un_fake", "no real", "not_a_fake"]
)
def test_a_negated_word_tells_no_label(name: str) -> None:
    assert label_from_last_word(name) is None


def test_a_folder_below_that_of_a_video_is_looked_for_frames(tmp_path: Path) -> None:
    grow_tree(tmp_path, domains=("real", "swap"), videos=1)
    (tmp_path / "test" / "real" / "empty" / "deeper").mkdir(parents=True)
    splits = {"train": "train", "val": "val", "test": "test"}
    problems = [
        entry
        for entry in folder.scan(tmp_path, "d", "{split}/{domain}/{video}", splits)
        if isinstance(entry, Problem)
    ]
    assert [problem.kind for problem in problems] == ["folders without frames"]
    assert "empty/deeper" in problems[0].what


def test_an_index_of_other_data_does_not_replace_the_manifest_of_crops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grow_tree(tmp_path / "other", domains=("real", "swap"), videos=1)
    written(tmp_path / "crops" / "extract.json", json.dumps({"frames": 32, "sampling": "spread"}))
    from_entries(
        [Frame(tmp_path / "crops" / "a.png", 0, "d", "real", "d/real/a", 0, "test")],
        tmp_path / "crops",
    ).write(tmp_path / "crops" / "manifest.parquet")
    before = (tmp_path / "crops" / "manifest.parquet").read_bytes()
    words = [
        "index",
        "data=folder",
        f"data.root={tmp_path / 'other'}",
        f"out={tmp_path / 'crops' / 'manifest.parquet'}",
    ]
    assert main(words) == 2
    assert (
        "holds crops, which have a manifest of their own; give another out=FILE.parquet"
        in capsys.readouterr().err
    )
    assert (tmp_path / "crops" / "manifest.parquet").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"index": None},
        {"index": True},
        {"index": -1},
        {"index": "0"},
        {"status": ["face"]},
        {"person": "../x"},
        {"file": "../x.png"},
    ],
    ids=str,
)
def test_a_damaged_record_of_crops_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    frame = {"index": 0, "status": "face", "file": "000000.png"}
    record = {
        "label": 0,
        "dataset": "d",
        "domain": "real",
        "video": "d/real/a",
        "split": "test",
        "compression": "",
        "frames": [frame],
    }
    written(tmp_path / "d" / "real" / "a" / "video.json", json.dumps(record))
    assert len(list(extracted.scan(tmp_path))) == 1
    frame |= change
    if change == {"index": None}:
        del frame["index"]
    written(tmp_path / "d" / "real" / "a" / "video.json", json.dumps(record))
    with pytest.raises(
        InputError, match=r"video\.json is damaged: .*delete its folder and run fmsd extract again"
    ):
        list(extracted.scan(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"frames": 32},
        {"frames": "x", "sampling": "spread"},
        {"frames": 1, "sampling": "some"},
        "abc",
    ],
    ids=str,
)
def test_a_damaged_mark_of_crops_is_named(tmp_path: Path, content: object) -> None:
    for name, record in (("extract.json", content), ("pack.json", {"crops": content})):
        mark = written(tmp_path / name, json.dumps(record))
        with pytest.raises(InputError, match=rf"{name} is damaged"):
            prepared_folder.crop_settings(tmp_path)
        mark.unlink()


def test_a_pack_whose_table_of_places_is_wrong_is_refused(tmp_path: Path) -> None:
    frames = [
        Frame(tmp_path / f"{name}.png", label, "d", domain, f"d/{domain}/{name}", 0, "test")
        for name, label, domain in (("a", 0, "real"), ("b", 1, "swap"))
    ]
    manifest = from_entries(frames, tmp_path)
    written(tmp_path / "pack.json", json.dumps({"crops": None}))
    places = pl.DataFrame(
        {"path": ["a.png", "b.png"], "tar": "0.tar", "offset": [512, 2560], "size": [10, 10]}
    )
    places.write_parquet(tmp_path / "pack.parquet")
    assert manifest.files() == [f"{tmp_path}/0.tar#512+10", f"{tmp_path}/0.tar#2560+10"]
    wrong = {
        "a path is there twice": pl.concat([places, places.head(1)]),
        "the place of a.png .*as frames do in a tar": places.with_columns(size=-places["size"]),
        "the place of b.png does not follow": places.with_columns(offset=512),
        "the place of b.png": places.with_columns(offset=pl.Series([512, 2561])),
        "lacks the columns size": places.drop("size"),
        "'offset' holds String": places.with_columns(offset=pl.lit("512")),
        "'size' lacks values": places.with_columns(size=pl.Series([10, None])),
    }
    for told, table_ in wrong.items():
        table_.write_parquet(tmp_path / "pack.parquet")
        with pytest.raises(InputError, match=told):
            manifest.files()
    (tmp_path / "pack.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is no parquet file"):
        manifest.files()


def test_an_id_like_that_of_a_track_is_refused_where_there_are_tracks() -> None:
    videos = [
        Video(Path("/a.mp4"), None, 0, "d", "real", name, "test")
        for name in ("d/real/v", "d/real/v_person2")
    ]
    check_person_ids(videos[:1])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="The id d/real/v_person2 ends like the id of a person"):
        check_person_ids(videos)  # pyright: ignore[reportArgumentType]


def test_an_index_that_is_no_whole_number_is_named_with_its_line(tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [[*table.REQUIRED_COLUMNS], ["a.png", 0, "d", "real", "d/real/a", "0.5", "test"]]
        )
    with pytest.raises(
        InputError,
        match=r"the index of a\.png is '0\.5'\) \(line 2 of .*; indices are whole numbers",
    ):
        list(table.scan(tmp_path, "t.csv"))


def test_a_folder_called_real_is_proposed_as_no_forgery(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("real", "authentic", "swap"):
        write_image(tmp_path / name / "v" / "0.png", 0)
    words = [
        "data.source.layout={domain}/{video}",
        "data.source.split=test",
        "data.source.real=[authentic]",
    ]
    assert (
        main(
            [
                "index",
                "data=folder",
                f"data.root={tmp_path}",
                f"out={tmp_path / 'o.parquet'}",
                words[1],
                words[2],
                "data.source.layout='{domain}/{video}'",
            ]
        )
        == 2
    )
    assert "if forgeries, rename them" in capsys.readouterr().err
