"""DF40: forty methods in trees of several shapes, and its JSON files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry, Problem, Video
from fmsd.data.sources import df40, df40_methods
from fmsd.data.sources.tree import FRAME_FOLDERS
from fmsd.errors import InputError
from tests.conftest import write_image

FF = {"train": [["071", "054"]], "val": [["720", "672"]], "test": [["953", "974"]]}

FAKES = {
    "DF40/simswap/ff/frames/953_974/000.png": ("simswap", "ff/953_974", "test"),
    "DF40/simswap/ff/frames/953_974/010.png": ("simswap", "ff/953_974", "test"),
    "DF40/simswap/cdf/frames/id0_id1_0000/000.png": ("simswap", "cdf/id0_id1_0000", "test"),
    "DF40_train/simswap/frames/071_054/000.png": ("simswap", "ff/071_054", "train"),
    "DF40/fomm/ff/frames/953_974/000.png": ("fomm", "ff/953_974", "test"),
    "DF40/DiT/cdf/YouTube-real/00043/458.png": ("DiT", "cdf/YouTube-real/00043", "test"),
    "DF40/DiT/cdf/Celeb-real/00043/458.png": ("DiT", "cdf/Celeb-real/00043", "test"),
    "DF40_train/DiT/071/seed0188.png": ("DiT", "ff/071", "train"),
    "DF40/e4e/ff/inversions/953.png": ("e4e", "ff/953.png", "test"),
    "DF40/StarGAN2/fake/0001.jpg": ("starganv2", "test/0001.jpg", "test"),
    "DF40/stargan/fake/fake/0001.jpg": ("stargan", "test/0001.jpg", "test"),
    "DF40/deepfacelab/fake/frames/0001/0.png": ("deepfacelab", "test/0001", "test"),
}
REALS = {
    "DF40/StarGAN2/real/0001.jpg": ("starganv2/test/0001.jpg", "test"),
    "DF40/stargan/real/real/0001.jpg": ("stargan/test/0001.jpg", "test"),
    "DF40/deepfacelab/real/0001/0.png": ("deepfacelab/test/0001", "test"),
    "FaceForensics++/original_sequences/youtube/c23/frames/071/0.png": ("c23/071", "train"),
    "FaceForensics++/original_sequences/youtube/c23/frames/953/0.png": ("c23/953", "test"),
    "Celeb-DF-v2/Celeb-real/frames/id0_0000/0.png": ("cdf/Celeb-real/id0_0000", "test"),
    "Celeb-DF-v2/YouTube-real/frames/00170/0.png": ("cdf/YouTube-real/00170", "test"),
}
LEFT_OUT = (
    "FaceForensics++/original_sequences/youtube/c23/frames/720/0.png",  # a validation video
    "Celeb-DF-v2/YouTube-real/frames/00000/0.png",  # no test video
    "DF40/simswap/ff/landmarks/953_974/000.png",
)


def tree(root: Path) -> Path:
    for seed, path in enumerate((*FAKES, *REALS, *LEFT_OUT)):
        write_image(root / path, seed, 8)
    for split, pairs in FF.items():
        (root / "FaceForensics++" / f"{split}.json").write_text(json.dumps(pairs))
    lines = [
        "1 Celeb-real/id0_0000.mp4",
        "1 YouTube-real/00170.mp4",
        "0 Celeb-synthesis/id0_id1_0000.mp4",
    ]
    (root / "Celeb-DF-v2/List_of_testing_videos.txt").write_text("\n".join(lines) + "\n")
    return root


def problems(entries: list[Entry], *kinds: str) -> list[str]:
    return [entry.what for entry in entries if isinstance(entry, Problem) and entry.kind in kinds]


def test_there_are_forty_methods_in_four_families() -> None:
    assert {family: len(methods) for family, methods in df40_methods.FAMILIES.items()} == {
        "FS": 10,
        "FR": 13,
        "EFS": 12,
        "FE": 5,
    }
    assert len(set(df40_methods.METHODS.values())) == 40


def test_every_shape_of_the_trees_is_read(tmp_path: Path) -> None:
    manifest = from_entries(df40.scan(tree(tmp_path)), tmp_path).validate()
    rows = {
        row["path"]: (row["label"], row["domain"], row["video"], row["split"])
        for row in manifest.table.to_dicts()
    }
    fakes = {
        path: (1, method, f"df40/{method}/{name}", split)
        for path, (method, name, split) in FAKES.items()
    }
    assert rows == fakes | {
        path: (0, "real", f"df40/real/{name}", split) for path, (name, split) in REALS.items()
    }
    assert manifest.table.filter(video="df40/simswap/ff/953_974").sort("index")["path"].str.tail(
        7
    ).to_list() == ["000.png", "010.png"]


@pytest.mark.parametrize(
    ("choice", "domains"),
    [
        ({"families": ["FS"]}, {"simswap", "deepfacelab"}),
        ({"families": ["FR", "EFS"]}, {"fomm", "DiT"}),
        ({"methods": ["fomm", "starganv2"]}, {"fomm", "starganv2"}),
        ({"origins": ["own"]}, {"starganv2", "stargan", "deepfacelab"}),
    ],
)
def test_families_methods_and_origins_are_chosen_with_their_real_videos(
    tmp_path: Path, choice: dict[str, list[str]], domains: set[str]
) -> None:
    manifest = from_entries(df40.scan(tree(tmp_path), **choice), tmp_path).validate()  # pyright: ignore[reportArgumentType]
    assert set(manifest.table["domain"]) == domains | {"real"}
    if choice.get("origins") == ["own"]:
        assert manifest.table.filter(label=0)["path"].str.starts_with("DF40/").all()
    if choice.get("families") == ["FS"]:
        assert manifest.where(split="train").videos == 2


def test_real_videos_of_the_training_split_come_with_the_training_tree(tmp_path: Path) -> None:
    root = tree(tmp_path)
    shutil.rmtree(root / "DF40_train")
    assert set(from_entries(df40.scan(root), root).validate().table["split"]) == {"test"}


def test_a_video_and_its_frames_are_one_entry(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for name in ("953_974", "974_953"):
        file = root / "DF40/fomm/ff/videos" / f"{name}.mp4"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = [
        entry
        for entry in df40.scan(root, methods=["fomm"])
        if isinstance(entry, Video) and entry.label
    ]
    assert {
        (entry.video, entry.file and entry.file.name, entry.images and entry.images.name)
        for entry in found
    } == {
        ("df40/fomm/ff/953_974", "953_974.mp4", "953_974"),
        ("df40/fomm/ff/974_953", "974_953.mp4", None),
    }


def test_two_files_or_folders_that_would_be_one_video_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path)
    folder = root / "DF40/fomm/ff/videos"
    folder.mkdir()
    for name in ("953_974.mp4", "953_974.avi"):
        (folder / name).touch()
    with pytest.raises(
        InputError,
        match=r"953_974\.(avi|mp4) and .*953_974\.(avi|mp4) are one video by their names; keep one",
    ):
        list(df40.scan(root, methods=["fomm"]))
    write_image(root / "DF40/deepfacelab/fake/0001/0.png", 0, 8)
    with pytest.raises(InputError, match=r"fake/0001.*are one video by their names"):
        list(df40.scan(root, methods=["deepfacelab"]))


def test_the_test_list_of_celebdf_is_read_as_its_own_source_reads_it(tmp_path: Path) -> None:
    root = tree(tmp_path)
    listed = root / "Celeb-DF-v2/List_of_testing_videos.txt"
    write_image(root / "Celeb-DF-v2/YouTube-real/frames/two words/0.png", 0, 8)
    listed.write_text(
        listed.read_text() + "1 YouTube-real/two words.mp4\n0 YouTube-real/00000.mp4\n"
    )
    entries = list(df40.scan(root, origins=["cdf"]))
    names = {
        entry.video.removeprefix("df40/real/")
        for entry in entries
        if isinstance(entry, Video) and not entry.label
    }
    assert names == {
        "cdf/Celeb-real/id0_0000",
        "cdf/YouTube-real/00170",
        "cdf/YouTube-real/two words",
        "cdf/YouTube-real/00000",
    }
    (what,) = problems(entries, "mislabelled")
    assert "calls 00000 fake, but it is in YouTube-real and taken for real" in what
    listed.write_text("Celeb-real/id0_0000.mp4\n")
    with pytest.raises(InputError, match=r"Line 1 of .* is not like '1 Celeb-real/id1_0007\.mp4'"):
        list(df40.scan(root, origins=["cdf"]))


def test_every_folder_of_frames_is_a_level(tmp_path: Path) -> None:
    for name in FRAME_FOLDERS:
        write_image(tmp_path / "DF40/heygen/fake" / name / f"{name}0" / "0.png", 0, 8)
    found = [
        entry.video for entry in df40.scan(tmp_path, methods=["heygen"]) if isinstance(entry, Video)
    ]
    assert found == [f"df40/heygen/test/{name}0" for name in sorted(FRAME_FOLDERS)]


def test_what_is_wrong_with_a_copy_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path)
    write_image(root / "DF40/roop/ff/frames/v/0.png", 0, 8)
    write_image(root / "DF40/lia/frames/v/0.png", 0, 8)
    shutil.rmtree(root / "DF40/StarGAN2/real")
    entries = list(df40.scan(root, methods=["simswap", "lia", "starganv2", "heygen"]))
    (unlisted,) = problems(entries, "unlisted")
    assert "DF40/roop is none of DF40's methods" in unlisted
    (misplaced,) = problems(entries, "misplaced")
    assert "DF40/lia/frames/v lies in none of ff, cdf" in misplaced
    missing = problems(entries, "missing")
    assert any("StarGAN2 has no real images beside the fake ones" in what for what in missing)
    for method in ("lia", "heygen"):
        assert any(f"lists {method}, which" in what for what in missing)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"families": ["GAN"]}, r"no family GAN; choose from FS, FR, EFS, FE"),
        (
            {"families": ["FR"], "methods": ["simswap"]},
            r"families FR of DF40 have no method simswap",
        ),
        ({"origins": ["celeba"]}, r"no origin celeba; choose from ff, cdf, own"),
        (
            {"ff": "/nowhere"},
            r"no folder /nowhere with the real videos of ff; set data\.source\.ff=PATH",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, choice: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(df40.scan(tree(tmp_path), **choice))  # pyright: ignore[reportArgumentType]


def test_missing_folders_and_lists_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither DF40 nor DF40_train"):
        list(df40.scan(tmp_path))
    with pytest.raises(InputError, match=r"holds no JSON file of the chosen methods"):
        list(df40.scan(tmp_path, lists=True))
    root = tree(tmp_path)
    (root / "Celeb-DF-v2/List_of_testing_videos.txt").unlink()
    with pytest.raises(
        InputError,
        match=r"no test list .*Celeb-DF-v2/List_of_testing_videos\.txt; it comes with the dataset",
    ):
        list(df40.scan(root))


# ---- its JSON files


def lists(root: Path) -> Path:
    prefix = "./deepfakes_detection_datasets"
    own = {split: {} for split in ("train", "val", "test")}
    real = "FaceForensics++/original_sequences/youtube/c23/frames"

    def write(
        name: str, method: str, fakes: dict[str, dict[str, str]], reals: dict[str, dict[str, str]]
    ) -> None:
        content: dict[str, dict[str, Any]] = {}
        for label, listed in ((f"{method}_Real", reals), (f"{method}_Fake", fakes)):
            content[label] = own | {
                split: {
                    video: {"label": label, "frames": [f"{prefix}/{path}"]}
                    for video, path in videos.items()
                }
                for split, videos in listed.items()
            }
        (root / "dataset_json" / f"{name}.json").write_text(json.dumps({name: content}))

    (root / "dataset_json").mkdir()
    shared = {"train": {"071": f"{real}/071/0.png"}, "test": {"953": f"{real}/953/0.png"}}
    trained = {
        "train": {"071_054": "DF40_train/simswap/frames/071_054/000.png"},
        "test": {"953_974": "DF40/simswap/ff/frames/953_974/000.png"},
    }
    write("simswap_ff", "simswap", trained, shared)
    write(
        "fomm_ff",
        "fomm",
        {
            "test": {
                "953_974": "DF40/fomm/ff/frames/953_974/000.png",
                "974_953": "DF40/fomm/ff/frames/974_953/000.png",
            }
        },
        shared,
    )
    write(
        "starganv2",
        "starganv2",
        {"test": {"0001": "DF40/StarGAN2/fake/0001.jpg"}},
        {"test": {"0001": "DF40/StarGAN2/real/0001.jpg"}},
    )
    return root


def test_the_json_files_give_methods_as_domains_and_shared_real_videos_once(tmp_path: Path) -> None:
    root = lists(tree(tmp_path))
    entries = list(df40.scan(root, methods=["simswap", "fomm", "starganv2", "lia"], lists=True))
    manifest = from_entries(entries, root).validate()
    assert set(manifest.table.select("video", "domain", "split").rows()) == {
        ("df40/simswap/ff/071_054", "simswap", "train"),
        ("df40/simswap/ff/953_974", "simswap", "test"),
        ("df40/fomm/ff/953_974", "fomm", "test"),
        ("df40/starganv2/own/0001", "starganv2", "test"),
        ("df40/real/ff/071", "real", "train"),
        ("df40/real/ff/953", "real", "test"),
        ("df40/real/starganv2/0001", "real", "test"),
    }
    lia, gone = sorted(
        problems(entries, "missing"), key=lambda what: "JSON file of lia" not in what
    )
    assert "holds no JSON file of lia" in lia
    assert "fomm_ff.json lists 1 frames that are not there" in gone


def test_the_json_files_follow_the_choice(tmp_path: Path) -> None:
    root = lists(tree(tmp_path))
    manifest = from_entries(
        df40.scan(root, families=["FS"], origins=["ff"], lists=True), root
    ).validate()
    assert set(manifest.table["domain"]) == {"simswap", "real"}
