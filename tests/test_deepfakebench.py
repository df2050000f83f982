"""Datasets by the JSON files of DeepfakeBench."""

import json
import logging
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.sources import deepfakebench
from fmsd.errors import InputError
from tests.conftest import write_image


def benchmark(root: Path, windows: bool = False, prefix: str = "") -> Path:
    """A DeepfakeBench copy: FaceForensics++ with its compression level, Celeb-DF with test videos
    that stand in train, too.
    """

    def frames(folder: str, *, first: int = 0) -> list[str]:
        names = []
        for number in (10, 2, first):
            write_image(root / "rgb" / folder / f"{number:03d}.png", number, 8)
            name = f"{prefix}{folder}/{number:03d}.png"
            names.append(name.replace("/", "\\") if windows else name)
        return names

    original, manipulated = (
        "FaceForensics++/original_sequences/youtube/c23/frames",
        "FaceForensics++/manipulated_sequences",
    )
    ff: dict[str, dict[str, object]] = {
        "FF-real": {
            split: {
                "c23": {name: {"label": "FF-real", "frames": frames(f"{original}/{name}")}},
                "c40": {},
            }
            for split, name in (("train", "071"), ("val", "054"), ("test", "003"))
        }
    }
    for label, method in (("FF-DF", "Deepfakes"), ("FF-NT", "NeuralTextures")):
        ff[label] = {
            split: {
                "c23": {
                    name: {
                        "label": label,
                        "frames": frames(f"{manipulated}/{method}/c23/frames/{name}"),
                        "masks": [],
                    }
                }
            }
            for split, name in (("train", "071_054"), ("test", "003_000"))
        }
    kept, tested = (
        {"label": "CelebDFv2_real", "frames": frames("Celeb-DF-v2/Celeb-real/frames/id0_0000")},
        frames("Celeb-DF-v2/Celeb-real/frames/id1_0000"),
    )
    real = {"label": "CelebDFv2_real", "frames": tested}
    fake = {
        "label": "CelebDFv2_fake",
        "frames": frames("Celeb-DF-v2/Celeb-synthesis/frames/id0_id1_0000"),
    }
    celeb = {
        "CelebDFv2_real": {
            "train": {"id0_0000": kept, "id1_0000": real},
            "val": {"id1_0000": real},
            "test": {"id1_0000": real},
        },
        "CelebDFv2_fake": {
            "train": {"id0_id1_0000": fake},
            "val": {},
            "test": {"id0_id1_0000": fake},
        },
    }
    (root / "dataset_json").mkdir()
    (root / "dataset_json" / "FaceForensics++.json").write_text(json.dumps({"FaceForensics++": ff}))
    (root / "dataset_json" / "Celeb-DF-v2.json").write_text(json.dumps({"Celeb-DF-v2": celeb}))
    return root


@pytest.mark.parametrize(
    ("windows", "prefix"),
    [
        (False, ""),
        (True, ""),
        (True, "D:/data/rgb/"),
        (False, "/home/someone/datasets/rgb/"),
        (False, "./datasets/rgb/"),
    ],
)
def test_deepfakebench_json_with_any_slashes_and_any_prefix(
    tmp_path: Path, windows: bool, prefix: str
) -> None:
    root = benchmark(tmp_path, windows, prefix)
    manifest = from_entries(
        deepfakebench.scan(root, "FaceForensics++.json", compression="c23"), root
    ).validate()
    assert manifest.videos == 7
    assert set(manifest.table["domain"]) == {"real", "Deepfakes", "NeuralTextures"}
    colliding = manifest.where(split="test", domain=["Deepfakes", "NeuralTextures"])
    assert set(colliding.table["video"]) == {
        f"FaceForensics++/{method}/c23/003_000" for method in ("Deepfakes", "NeuralTextures")
    }
    assert colliding.table.filter(domain="Deepfakes").sort("index")["path"].str.tail(
        7
    ).to_list() == ["000.png", "002.png", "010.png"]


def test_paths_of_one_file_may_begin_differently(tmp_path: Path) -> None:
    """Lists of two machines that were joined, one of them with absolute paths, one edited."""
    root = benchmark(tmp_path)
    path = root / "dataset_json" / "FaceForensics++.json"
    content = json.loads(path.read_text())
    for label, prefix in (
        ("FF-real", "/home/a/rgb/"),
        ("FF-NT", "C:\\data\\"),
        ("FF-DF", "../rgb/"),
    ):
        for split in content["FaceForensics++"][label].values():
            for video in split["c23"].values():
                video["frames"] = [f"{prefix}{frame}" for frame in video["frames"]]
    path.write_text(json.dumps(content))
    manifest = from_entries(
        deepfakebench.scan(root, "FaceForensics++.json", compression="c23"), root
    ).validate()
    assert manifest.videos == 7
    assert set(manifest.table["path"].str.split("/").list.first()) == {"rgb"}


def test_a_missing_folder_is_not_replaced_by_another_of_the_same_names(tmp_path: Path) -> None:
    root = benchmark(tmp_path)
    (root / "rgb/FaceForensics++/manipulated_sequences/NeuralTextures").rename(tmp_path / "away")
    write_image(root / "frames" / "071_054" / "000.png", 0, 8)
    manifest = from_entries(
        deepfakebench.scan(root, "FaceForensics++.json", compression="c23"), root
    )
    with pytest.raises(InputError, match=r"NeuralTextures/c23/frames/.*do(es)? not exist"):
        manifest.validate()


def test_a_video_that_deepfakebench_lists_in_several_splits_is_a_test_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = benchmark(tmp_path)
    with caplog.at_level(logging.WARNING):
        manifest = from_entries(
            deepfakebench.scan(root, "Celeb-DF-v2.json", dataset="celebdf_v2"), root
        ).validate()
    assert "lists 3 videos of celebdf_v2 again in another split" in caplog.text
    assert set(manifest.where(split="test").table["video"]) == {
        "celebdf_v2/real/id1_0000",
        "celebdf_v2/Celeb-synthesis/id0_id1_0000",
    }
    assert set(manifest.where(split="train").table["video"]) == {"celebdf_v2/real/id0_0000"}


def test_frames_in_place_of_the_validation_videos_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DFDC.json as DeepfakeBench's own script writes it."""
    for name in ("a", "b"):
        write_image(tmp_path / "DFDC" / name / "0.png", 0, 8)
    video = {name: {"label": "DFDC_Real", "frames": [f"DFDC/{name}/0.png"]} for name in ("a", "b")}
    (tmp_path / "DFDC.json").write_text(
        json.dumps(
            {
                "DFDC": {
                    "DFDC_Real": {
                        "train": {"a": video["a"]},
                        "test": {"b": video["b"]},
                        "val": video["b"],
                    }
                }
            }
        )
    )
    with caplog.at_level(logging.WARNING):
        manifest = from_entries(deepfakebench.scan(tmp_path, "DFDC.json"), tmp_path).validate()
    assert "lists frames without a video's name" in caplog.text
    assert dict(manifest.table.select("video", "split").rows()) == {
        "DFDC/real/a": "train",
        "DFDC/real/b": "test",
    }


def test_missing_frames_do_not_hide_where_the_others_lie(tmp_path: Path) -> None:
    """The manifest's check then names them."""
    names = [f"{number:03d}" for number in range(100)]
    video = {
        name: {
            "label": "X_fake",
            "frames": [f"elsewhere/X/fake/{name}/{frame}.png" for frame in (0, 1)],
        }
        for name in names
    }
    (tmp_path / "X.json").write_text(json.dumps({"X": {"X_fake": {"train": video}}}))
    with pytest.raises(
        InputError,
        match=r"lists elsewhere/X/fake/000/0\.png and 24 more that were looked for, "
        r"of which none lies under .*data\.root",
    ):
        list(deepfakebench.scan(tmp_path, "X.json"))
    for name in names[3:]:
        write_image(tmp_path / "rgb" / "X" / "fake" / name / "0.png", 0, 8)
    manifest = from_entries(deepfakebench.scan(tmp_path, "X.json"), tmp_path)
    assert manifest.table["path"].to_list() == [
        f"rgb/X/fake/{name}/{frame}.png" for name in names for frame in (0, 1)
    ]
    with pytest.raises(
        InputError, match=r"rgb/X/fake/000/0\.png.* and 100 more do not exist under"
    ):
        manifest.validate()


def test_deepfakebench_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    root = benchmark(tmp_path)
    with pytest.raises(InputError, match=r"no DFDC\.json in .*dataset_json"):
        list(deepfakebench.scan(root, "DFDC.json"))
    with pytest.raises(InputError, match=r"holds the compressions c23.*not raw"):
        list(deepfakebench.scan(root, "FaceForensics++.json", compression="raw"))
    (root / "half.json").write_text('{"X": {"X_fake"')
    with pytest.raises(
        InputError,
        match=r"half\.json is not a JSON file \(.*line 1 column 16.*; "
        r"fetch it again if it is cut off",
    ):
        list(deepfakebench.scan(root, "half.json"))
    video = {"v": {"label": "mystery", "frames": ["nowhere/v/0.png"]}}
    (root / "odd.json").write_text(json.dumps({"X": {"mystery": {"train": video}}}))
    with pytest.raises(InputError, match=r"label 'mystery' .*data\.source\.labels"):
        list(deepfakebench.scan(root, "odd.json"))
    with pytest.raises(InputError, match=r"lists nowhere/v/0\.png, of which none lies under"):
        list(deepfakebench.scan(root, "odd.json", labels={"mystery": 1}))
