"""FaceForensics++, as its own tree and by DeepfakeBench's file."""

import json
import logging
import shutil
from pathlib import Path

import hydra
import pytest

from fmsd.cli import resolvers  # noqa: F401  which the data files call
from fmsd.cli.build import build_selection
from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem, Video
from fmsd.data.selected_frames import list_frames
from fmsd.data.sources import ffpp
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import write_image
from tests.test_deepfakebench import benchmark

METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")

PAIRS = {"train": [["071", "054"]], "val": [["720", "672"]], "test": [["953", "974"]]}


def ffpp_tree(root: Path, frames: str = "images", splits: str = "splits") -> Path:
    for one, other in (pair for pairs in PAIRS.values() for pair in pairs):
        for name in (one, other):
            write_image(
                root / "original_sequences/youtube/c23" / frames / name / "0000.png", int(name), 8
            )
        for method in METHODS:
            for name in (f"{one}_{other}", f"{other}_{one}"):
                write_image(
                    root / "manipulated_sequences" / method / "c23" / frames / name / "0000.png",
                    1,
                    8,
                )
    (root / splits).mkdir(exist_ok=True)
    for split, pairs in PAIRS.items():
        (root / splits / f"{split}.json").write_text(json.dumps(pairs))
    return root


@pytest.mark.parametrize(
    ("frames", "splits"), [("images", "splits"), ("frames", "."), ("faces", "dataset/splits")]
)
def test_ffpp_trees_and_the_official_split(tmp_path: Path, frames: str, splits: str) -> None:
    (tmp_path / "dataset").mkdir()
    root = ffpp_tree(tmp_path, frames, splits)
    manifest = from_entries(ffpp.scan(root), root).validate()
    assert manifest.videos == 3 * (2 + 2 * len(METHODS))
    assert set(manifest.where(split="val").table["video"]) == {
        "ff++/real/c23/720",
        "ff++/real/c23/672",
    } | {f"ff++/{method}/c23/{name}" for method in METHODS for name in ("720_672", "672_720")}
    some = from_entries(ffpp.scan(root, manipulations=["FaceSwap"]), root)
    assert set(some.table["domain"]) == {"real", "FaceSwap"}


def test_ffpp_frames_are_in_numeric_order_and_absent_or_empty_videos_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = ffpp_tree(tmp_path)
    video = root / "original_sequences/youtube/c23/images/071"
    for name in ("998", "999", "1000", "1001"):
        write_image(video / f"{name}.png", 0, 8)
    manifest = from_entries(ffpp.scan(root), root)
    ordered = (
        manifest.table.filter(video="ff++/real/c23/071")
        .sort("index")["path"]
        .str.extract(r"(\d+)\.png")
        .to_list()
    )
    assert ordered == ["0000", "998", "999", "1000", "1001"]
    shutil.rmtree(video)
    with caplog.at_level(logging.WARNING):
        from_entries(ffpp.scan(root), root)
    assert "the official split lists 071, which" in caplog.text
    video.mkdir()
    with caplog.at_level(logging.WARNING):
        left = from_entries(ffpp.scan(root), root)
    assert "images/071 holds no frames; extract them again" in caplog.text
    assert left.videos == manifest.videos - 1


def test_ffpp_takes_the_split_from_a_deepfakebench_file(tmp_path: Path) -> None:
    root = ffpp_tree(tmp_path / "ff")
    official = ffpp.read_splits(root, None)
    content: dict[str, dict[str, dict[str, dict[str, object]]]] = {"FF-real": {}, "FF-DF": {}}
    for name, split in official.items():
        label = "FF-DF" if "_" in name else "FF-real"
        content[label].setdefault(split, {"c23": {}})["c23"][name] = {"label": label, "frames": []}
    (tmp_path / "bench.json").write_text(json.dumps({"FaceForensics++": content}))
    assert ffpp.read_splits(root, str(tmp_path / "bench.json")) == official


def test_ffpp_takes_the_split_from_a_deepfakebench_file_wherever_it_lies_and_without_compressions(
    tmp_path: Path,
) -> None:
    root = ffpp_tree(tmp_path)
    official = ffpp.read_splits(root, None)
    shutil.rmtree(root / "splits")
    content: dict[str, dict[str, dict[str, object]]] = {"FF-real": {}, "FF-DF": {}}
    for name, split in official.items():
        label = "FF-DF" if "_" in name else "FF-real"
        content[label].setdefault(split, {})[name] = {"label": label, "frames": []}
    (root / "preprocessing/dataset_json").mkdir(parents=True)
    file = root / "preprocessing/dataset_json/FaceForensics++.json"
    file.write_text(json.dumps({"FaceForensics++": content}))
    assert ffpp.read_splits(root, None) == official
    file.write_text(json.dumps({"FaceForensics++": {"FF-real": {"train": {"label": "FF-real"}}}}))
    with pytest.raises(
        InputError,
        match=r"FF-real / train / label in .*FaceForensics\+\+\.json is text, not an object; "
        r"correct that entry",
    ):
        ffpp.read_splits(root, None)


@pytest.mark.parametrize("where", [".", "dataset_json", "preprocessing/dataset_json"])
def test_ffpp_is_read_by_deepfakebench_s_file_where_there_is_no_tree(
    tmp_path: Path, where: str
) -> None:
    root = benchmark(tmp_path)
    (root / where).mkdir(parents=True, exist_ok=True)
    (root / "dataset_json/FaceForensics++.json").rename(root / where / "FaceForensics++.json")
    manifest = from_entries(
        ffpp.scan(root, manipulations=["NeuralTextures", "Deepfakes"]), root
    ).validate()
    assert manifest.table["video"].unique().sort().to_list() == [
        *(
            f"ff++/{method}/c23/{name}"
            for method in ("Deepfakes", "NeuralTextures")
            for name in ("003_000", "071_054")
        ),
        *(f"ff++/real/c23/{name}" for name in ("003", "054", "071")),
    ]
    assert set(manifest.where(split="val").table["video"]) == {"ff++/real/c23/054"}
    some = from_entries(ffpp.scan(root, manipulations=["NeuralTextures"]), root)
    assert some.digest() == manifest.where(domain=["real", "NeuralTextures"]).digest()
    with pytest.raises(
        InputError,
        match=r"lists no videos of Face2Face, FaceSwap; "
        r"fetch it again, or choose data\.source\.manipulations",
    ):
        list(ffpp.scan(root))
    with pytest.raises(
        InputError,
        match=r"holds the compressions c23.*not raw; choose one with data\.source\.compression",
    ):
        list(ffpp.scan(root, compression="raw"))
    with pytest.raises(
        InputError, match=r"lists frames and splits itself; remove data\.source\.splits"
    ):
        list(ffpp.scan(root, splits="mine"))


def test_ffpp_has_its_own_root_or_that_of_deepfakebench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_DEEPFAKEBENCH", str(benchmark(tmp_path)))
    monkeypatch.delenv("FMSD_FFPP", raising=False)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        choice = ["data=ff++", "data.source.manipulations=[Deepfakes,NeuralTextures]"]
        assert list_frames(build_selection(hydra.compose("train", choice).data)).videos == 7
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("FMSD_FFPP", str(tmp_path / "elsewhere"))
        assert hydra.compose("train", choice).data.root == str(tmp_path / "elsewhere")


def test_ffpp_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*data\.root"):
        list(ffpp.scan(tmp_path / "none"))
    root = ffpp_tree(tmp_path / "ff")
    with pytest.raises(
        InputError, match=r"lacks .*original_sequences/youtube/c40.*data\.source\.compression"
    ):
        list(ffpp.scan(root, compression="c40"))
    write_image(root / "original_sequences/youtube/c23/images/999/0.png", 0, 8)
    (problem,) = [entry for entry in ffpp.scan(root) if isinstance(entry, Problem)]
    assert problem.kind == "unlisted"
    assert "999 is in none of the official splits" in problem.what
    (root / "splits" / "val.json").unlink()
    with pytest.raises(InputError, match=r"ff/splits lacks val\.json; copy it there from dataset/"):
        list(ffpp.scan(root))
    with pytest.raises(
        InputError, match=r"mine holds no split .*; correct data\.source\.splits=PATH"
    ):
        list(ffpp.scan(root, splits="mine"))
    videos = tmp_path / "videos"
    for folder_ in (
        "original_sequences/youtube",
        *(f"manipulated_sequences/{method}" for method in METHODS),
    ):
        (videos / folder_ / "c23" / "videos").mkdir(parents=True)
        (
            videos
            / folder_
            / "c23"
            / "videos"
            / ("071.mp4" if "original" in folder_ else "071_054.mp4")
        ).touch()
    (videos / "splits").mkdir()
    for split, pairs in PAIRS.items():
        (videos / "splits" / f"{split}.json").write_text(json.dumps(pairs))
    found = [entry for entry in ffpp.scan(videos) if isinstance(entry, Video)]
    assert [entry.video for entry in found] == [
        "ff++/real/c23/071",
        *(f"ff++/{method}/c23/071_054" for method in METHODS),
    ]
    with pytest.raises(
        InputError, match=r"071\.mp4 is a video, and no frames are extracted from it.*fmsd extract"
    ):
        from_entries(ffpp.scan(videos), videos)


def test_ffpp_asks_which_of_two_frame_folders_is_meant(tmp_path: Path) -> None:
    root = ffpp_tree(tmp_path)
    ffpp_tree(tmp_path, "faces")
    with pytest.raises(
        InputError, match=r"holds faces, images; choose one with data\.source\.frames"
    ):
        list(ffpp.scan(root))
    assert len(list(ffpp.scan(root, frames="faces"))) == 30
