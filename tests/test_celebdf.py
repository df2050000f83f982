"""Celeb-DF v1, v2 and ++ against generated copies of their official trees."""

import json
from collections.abc import Iterable
from pathlib import Path

import hydra
import polars as pl
import pytest

from fmsd.cli.build import build_selection
from fmsd.data.audit.table import part_findings
from fmsd.data.entries import from_entries
from fmsd.data.frame import Entry, Problem, Video
from fmsd.data.selected_frames import list_frames
from fmsd.data.sources import celebdf
from fmsd.errors import InputError
from fmsd.package_files import CONF
from tests.conftest import write_image

REALS = {"Celeb-real": ("id0_0000", "id0_0001", "id1_0000"), "YouTube-real": ("00000", "00170")}
TESTED = ("1 YouTube-real/00170.mp4", "1 Celeb-real/id1_0000.mp4")
V2 = {"Celeb-synthesis": ("id0_id1_0000", "id1_id0_0000")}
V2_TESTED = (*TESTED, "0 Celeb-synthesis/id1_id0_0000.mp4")
PP = {
    "Celeb-synthesis/FaceSwap/BlendFace": ("id0_id1_0000", "id1_id0_0000"),
    "Celeb-synthesis/FaceReenact/LivePortrait": ("id0_id1_0000",),
    "Celeb-synthesis/TalkingFace/IP_LAP": ("id0_0000_test_0001",),
}
PP_TESTED = (
    *TESTED,
    "0 Celeb-synthesis/FaceSwap/BlendFace/id1_id0_0000.mp4",
    "0 Celeb-synthesis/FaceReenact/LivePortrait/id0_id1_0000.mp4",
)


def copy(
    root: Path,
    fakes: dict[str, tuple[str, ...]],
    tested: Iterable[str],
    inside: str = ".",
    videos: bool = True,
) -> Path:
    """A copy with empty videos, or with two extracted frames of each in the folder `inside`."""
    for folder, names in (REALS | fakes).items():
        for name in names:
            if videos:
                (root / folder / inside).mkdir(parents=True, exist_ok=True)
                (root / folder / inside / f"{name}.mp4").touch()
            else:
                for index in (0, 1):
                    write_image(root / folder / inside / name / f"{index:03d}.png", index, 8)
    (root / "List_of_testing_videos.txt").write_text("\n".join(tested) + "\n\n")
    return root


def videos(entries: Iterable[Entry]) -> dict[str, Video]:
    return {entry.video: entry for entry in entries if isinstance(entry, Video)}


def problems(entries: Iterable[Entry]) -> list[Problem]:
    return [entry for entry in entries if isinstance(entry, Problem)]


@pytest.mark.parametrize("inside", [".", "videos"])
def test_the_list_tells_the_test_videos_and_the_folder_the_forgery(
    tmp_path: Path, inside: str
) -> None:
    entries = list(celebdf.scan(copy(tmp_path, V2, V2_TESTED, inside), "celebdf_v2"))
    assert problems(entries) == []
    assert {
        video: (entry.label, entry.domain, entry.split) for video, entry in videos(entries).items()
    } == {
        "celebdf_v2/real/id0_0000": (0, "real", "train"),
        "celebdf_v2/real/id0_0001": (0, "real", "train"),
        "celebdf_v2/real/id1_0000": (0, "real", "test"),
        "celebdf_v2/real/00000": (0, "real", "train"),
        "celebdf_v2/real/00170": (0, "real", "test"),
        "celebdf_v2/Celeb-synthesis/id0_id1_0000": (1, "Celeb-synthesis", "train"),
        "celebdf_v2/Celeb-synthesis/id1_id0_0000": (1, "Celeb-synthesis", "test"),
    }
    assert (
        videos(entries)["celebdf_v2/real/00170"].file
        == tmp_path / "YouTube-real" / inside / "00170.mp4"
    )


@pytest.mark.parametrize("inside", [".", "frames", "faces"])
def test_extracted_frames_make_a_valid_manifest(tmp_path: Path, inside: str) -> None:
    root = copy(tmp_path, V2, V2_TESTED, inside, videos=False)
    manifest = from_entries(celebdf.scan(root, "celebdf_v1"), root).validate()
    assert (len(manifest), manifest.videos) == (14, 7)
    assert set(manifest.where(split="test").table["video"]) == {
        "celebdf_v1/real/00170",
        "celebdf_v1/real/id1_0000",
        "celebdf_v1/Celeb-synthesis/id1_id0_0000",
    }


def test_all_of_a_fake_s_first_person_is_held_out_together_but_not_of_its_second(
    tmp_path: Path,
) -> None:
    root = copy(tmp_path, V2, V2_TESTED, videos=False)
    for person in range(2, 8):
        for name in (
            f"Celeb-real/id{person}_0000",
            f"Celeb-real/id{person}_0001",
            *(f"Celeb-synthesis/id{person}_id{other}_0000" for other in range(8)),
        ):
            write_image(root / name / "000.png", person, 8)
    manifest = from_entries(celebdf.scan(root, "c"), root).hold_out(0.5)
    first, second = (
        {
            split: set(manifest.where(split=split).table["video"].str.extract(pattern)) - {None}
            for split in ("train", "val")
        }
        for pattern in (r"/(id\d+)_", r"/id\d+_(id\d+)_")
    )
    assert len(first["val"]) == 4  # of seven
    assert first["train"].isdisjoint(first["val"])
    assert first["train"] & second["val"]


def test_a_domain_of_celebdf_pp_is_a_method(tmp_path: Path) -> None:
    entries = list(celebdf.scan_pp(copy(tmp_path, PP, PP_TESTED), "celebdf_pp"))
    assert problems(entries) == []
    assert {
        video: (entry.domain, entry.split)
        for video, entry in videos(entries).items()
        if entry.label
    } == {
        "celebdf_pp/BlendFace/id0_id1_0000": ("BlendFace", "train"),
        "celebdf_pp/BlendFace/id1_id0_0000": ("BlendFace", "test"),
        "celebdf_pp/LivePortrait/id0_id1_0000": ("LivePortrait", "test"),
        "celebdf_pp/IP_LAP/id0_0000_test_0001": ("IP_LAP", "train"),
    }
    assert len(videos(entries)) == 9


def test_the_fakes_of_v2_are_one_domain_by_both_names_of_their_folder(tmp_path: Path) -> None:
    for name in ("Celeb-DF", "Celeb-DF-v2"):
        place = f"Celeb-synthesis/FaceSwap/{name}"
        root = copy(
            tmp_path / name,
            {place: ("id0_id1_0000", "id1_id0_0000")},
            (*TESTED, f"0 {place}/id1_id0_0000.mp4"),
        )
        entries = list(celebdf.scan_pp(root, "c"))
        assert problems(entries) == []
        fakes = {
            video: (entry.domain, entry.split)
            for video, entry in videos(entries).items()
            if entry.label
        }
        assert fakes == {
            "c/Celeb-DF/id0_id1_0000": ("Celeb-DF", "train"),
            "c/Celeb-DF/id1_id0_0000": ("Celeb-DF", "test"),
        }


@pytest.mark.parametrize("fewer", [0, 1])
def test_a_whole_copy_of_celebdf_pp_has_the_expected_numbers(fewer: int) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        expected = hydra.compose("train", ["data=celebdf_pp"]).data.expected
    numbers = {(domain, "test"): count for domain, count in expected.test.items()} | {
        ("real", "train"): 890 - 178
    }
    numbers |= {(domain, "train"): 2000 for domain in expected.test if domain != "real"}
    numbers["Celeb-DF", "test"] -= fewer
    rows = [
        (f"{domain}{split}{number}", domain, split)
        for (domain, split), count in numbers.items()
        for number in range(count)
    ]
    found = part_findings(
        pl.DataFrame(rows, schema=["video", "domain", "split"], orient="row"), expected
    )
    assert len(expected.test) == 1 + 22
    assert [finding.examples for finding in found] == (
        [["Celeb-DF test 339 of 340"]] if fewer else []
    )


def test_frames_of_celebdf_pp_are_found_in_each_method(tmp_path: Path) -> None:
    root = copy(tmp_path, PP, PP_TESTED, "frames", videos=False)
    manifest = from_entries(celebdf.scan_pp(root, "celebdf_pp"), root).validate()
    assert manifest.videos == 9
    assert (
        "Celeb-synthesis/TalkingFace/IP_LAP/frames/id0_0000_test_0001/001.png"
        in manifest.table["path"]
    )


def test_equal_names_in_both_real_folders_stay_two_videos(tmp_path: Path) -> None:
    root = copy(tmp_path, V2, (*V2_TESTED, "1 YouTube-real/id0_0000.mp4"), videos=False)
    write_image(root / "YouTube-real" / "id0_0000" / "000.png", 0, 8)
    manifest = from_entries(celebdf.scan(root, "c"), root).validate()
    split = dict(manifest.table.select("video", "split").rows())
    assert (split["c/real/Celeb-real/id0_0000"], split["c/real/YouTube-real/id0_0000"]) == (
        "train",
        "test",
    )
    assert "c/real/id0_0000" not in split
    assert "c/real/id0_0001" in split


def test_listed_videos_that_are_absent_and_labels_that_contradict_their_folder_are_told(
    tmp_path: Path,
) -> None:
    tested = (
        "1 Celeb-real/id9_0000.mp4",
        "0 Celeb-real/id0_0000.mp4",
        "1 Celeb-synthesis/id0_id1_0000.mp4",
        "0 Elsewhere/id0_id1_0000.mp4",
    )
    entries = list(celebdf.scan(copy(tmp_path, V2, tested), "c"))
    found = problems(entries)
    assert sorted(problem.kind for problem in found) == [
        "mislabelled",
        "mislabelled",
        "missing",
        "missing",
    ]
    assert "lists id9_0000, which" in found[0].what
    assert "Elsewhere does not hold" in found[1].what
    assert "calls id0_0000 fake, but it is in Celeb-real and taken for real" in found[2].what
    kept = videos(entries)
    assert (kept["c/real/id0_0000"].label, kept["c/real/id0_0000"].split) == (0, "test")
    assert (
        kept["c/Celeb-synthesis/id0_id1_0000"].label,
        kept["c/Celeb-synthesis/id0_id1_0000"].split,
    ) == (1, "test")


def test_a_method_that_only_the_list_knows_is_missing(tmp_path: Path) -> None:
    root = copy(
        tmp_path, PP, (*PP_TESTED, "0 Celeb-synthesis/TalkingFace/FLOAT/id0_0000_test_0001.mp4")
    )
    (problem,) = problems(celebdf.scan_pp(root, "c"))
    assert problem.kind == "missing"
    assert "TalkingFace/FLOAT does not hold" in problem.what


def test_copies_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no test list .*List_of_testing_videos\.txt.*data\.root"):
        list(celebdf.scan(tmp_path / "none", "c"))
    root = copy(tmp_path / "v2", V2, V2_TESTED)
    with pytest.raises(InputError, match=r"holds no method below FaceSwap.*data=celebdf_v2"):
        list(celebdf.scan_pp(root, "c"))
    with pytest.raises(InputError, match=r"tree of Celeb-DF\+\+; read it with data=celebdf_pp"):
        list(celebdf.scan(copy(tmp_path / "pp", PP, PP_TESTED), "c"))
    with pytest.raises(InputError, match=r"has no folder crops; correct data\.source\.frames"):
        list(celebdf.scan(root, "c", frames="crops"))
    for line in ("real Celeb-real/id0_0000.mp4", "1 id0_0000.mp4", "1"):
        (root / "List_of_testing_videos.txt").write_text(f"1 Celeb-real/id0_0000.mp4\n{line}\n")
        with pytest.raises(
            InputError, match=r"Line 2 of .* is not like '1 Celeb-real/id1_0007\.mp4'"
        ):
            list(celebdf.scan(root, "c"))


def test_deepfakebench_json_wins_where_the_root_holds_it(tmp_path: Path) -> None:
    """Through the configuration, which says what both are called."""
    root = copy(tmp_path, V2, V2_TESTED, videos=False)
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", ["data=celebdf_v2", f"data.root={root}"]).data
    manifest = list_frames(build_selection(config)).validate()
    assert (manifest.videos, set(manifest.table["dataset"])) == (7, {"celebdf_v2"})
    frames = ["Celeb-real/id0_0000/000.png", "Celeb-real/id0_0000/001.png"]
    listed = {
        "CelebDFv2_real": {
            "train": {},
            "val": {},
            "test": {"id0_0000": {"label": "CelebDFv2_real", "frames": frames}},
        }
    }
    (root / "Celeb-DF-v2.json").write_text(json.dumps({"Celeb-DF-v2": listed}))
    manifest = list_frames(build_selection(config)).validate()
    assert manifest.table.select("video", "split").unique().rows() == [
        ("celebdf_v2/real/id0_0000", "test")
    ]
