"""A dataset as folders, with layouts, wildcards and equal names."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.sources import folder
from fmsd.data.sources.tree import list_videos
from fmsd.errors import InputError
from tests import test_celebdf, test_df40, test_dfdc, test_uadfv, test_wilddeepfake
from tests.conftest import SPLITS, grow_tree, write_image
from tests.surroundings import python_path
from tests.test_deepfakebench import benchmark
from tests.test_ffpp import ffpp_tree


def test_folder_reads_splits_domains_and_videos(tree: Path) -> None:
    manifest = from_entries(
        folder.scan(tree, "mine", "{split}/{domain}/{video}", SPLITS, ["real"]), tree
    ).validate()  # pyright: ignore
    assert len(manifest) == 24
    assert manifest.videos == 12
    row = manifest.table.filter(path="test/swap/test1/1.png").to_dicts()[0]
    described = {
        "label": 1,
        "dataset": "mine",
        "domain": "swap",
        "video": "mine/swap/test1",
        "index": 1,
        "split": "test",
        "compression": "",
        "pair": "",
        "audio": "",
    }
    assert row == {"path": "test/swap/test1/1.png"} | described


def test_lone_images_are_a_video_each_and_frames_are_in_numeric_order(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for domain in ("0_real", "gan"):
            write_image(tmp_path / split / domain / "0001.jpg", 0, 8)
    for number in (1, 2, 10):
        write_image(tmp_path / "test" / "gan" / "clip" / f"{number}.png", number, 8)
    manifest = from_entries(
        folder.scan(tmp_path, "faces", "{split}/{domain}/{video}", SPLITS, ["0_real"]), tmp_path
    ).validate()  # pyright: ignore
    assert manifest.videos == 5
    clip = manifest.table.filter(video="faces/gan/clip").sort("index")
    assert clip["path"].to_list() == [f"test/gan/clip/{number}.png" for number in (1, 2, 10)]


def test_other_layouts_name_what_each_level_is(tmp_path: Path) -> None:
    write_image(tmp_path / "cdf" / "real" / "c23" / "frames" / "v" / "0.png", 0, 8)
    write_image(tmp_path / "cdf" / "fs" / "c23" / "frames" / "v" / "0.png", 1, 8)
    scanned = folder.scan(
        tmp_path, "x", "{dataset}/{domain}/{compression}/frames/{video}", {}, ["real"], split="test"
    )
    manifest = from_entries(scanned, tmp_path).validate()
    assert set(manifest.table["video"]) == {"cdf/real/c23/v", "cdf/fs/c23/v"}
    assert set(manifest.table["split"]) == {"test"}


@pytest.mark.parametrize(
    ("layout", "real", "split", "message"),
    [
        ("{split}/{domain}", ["real"], None, r"does not fit the layout"),
        ("{split}/{label}/{video}", ["real"], None, "unknown fields label"),
        ("{split}/{domain}_{domain}", ["real"], None, r"holds {domain} more than once; write \*"),
        (
            "{split}/{split}/{video}/{video}/{domain}",
            ["real"],
            None,
            r"holds {split}, {video} more than once",
        ),
        (
            "{split}/{domain}/{video}",
            ["pristine"],
            None,
            r"None of the folders 'real', 'swap' holds real images.*data\.source\.real",
        ),
        ("*/{domain}/{video}", ["real"], None, r"data\.source\.split=train"),
        (
            "{domain}/{split}/{video}",
            ["train"],
            None,
            r"is in no known split .*data\.source\.splits\.real",
        ),
    ],
)
def test_a_folder_that_its_layout_does_not_explain_is_refused(
    tree: Path, layout: str, real: list[str], split: None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        list(folder.scan(tree, "mine", layout, SPLITS, real, split))  # pyright: ignore


def test_what_a_wildcard_stands_for_keeps_equal_names_apart(tmp_path: Path) -> None:
    for outer in ("a", "b"):
        for domain in ("real", "swap"):
            write_image(tmp_path / outer / domain / "v0" / "0.png", 0, 8)
            write_image(tmp_path / outer / domain / "lone.png", 1, 8)
    manifest = from_entries(
        folder.scan(tmp_path, "x", "*/{domain}/{video}", {}, ["real"], split="test"), tmp_path
    ).validate()
    assert manifest.videos == 8
    assert "x/real/a/v0" in manifest.table["video"]
    assert "x/real/b/lone.png" in manifest.table["video"]


def test_a_missing_or_empty_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*data\.root=PATH"):
        list(folder.scan(tmp_path / "none", "x", "{domain}", {}, ["real"], "test"))
    with pytest.raises(InputError, match=r"No frames were found"):
        from_entries(folder.scan(tmp_path, "x", "{domain}", {}, ["real"], "test"), tmp_path)


@pytest.mark.parametrize("inside", [".", "videos"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, inside: str) -> None:
    place = tmp_path / inside
    place.mkdir(exist_ok=True)
    for name in ("0000.mp4", "0001.mp4", "0000.txt", ".0000.avi"):
        (place / name).touch()
    assert list_videos(tmp_path) == (
        {"0000": (place / "0000.mp4", None), "0001": (place / "0001.mp4", None)},
        [],
    )
    (place / "0000.avi").touch()
    with pytest.raises(
        InputError,
        match=r"0000\.avi and .*0000\.mp4 are one video by their names; keep one of them",
    ):
        list_videos(tmp_path)


READ = """
import importlib, json, sys
from pathlib import Path
from fmsd.data.entries import from_entries
from fmsd.errors import InputError
for name, arguments, root, _ in json.loads(sys.argv[1]):
    module, _, function = name.rpartition(".")
    scan = getattr(importlib.import_module(f"fmsd.data.sources.{module}"), function)
    try:
        print("read", len(from_entries(scan(Path(root), **arguments), Path(root))))
    except InputError as error:
        print(error)
"""


def test_folders_that_cannot_be_read_are_named_by_every_source(tmp_path: Path) -> None:
    """By a user bound by file modes; root is only without two of its capabilities."""
    bound = []
    if os.geteuid() == 0:
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if (
            shutil.which("setpriv") is None
            or subprocess.run([*bound, "true"], check=False).returncode
        ):
            pytest.skip("root cannot give up its rights here")
    layout = {
        "dataset": "mine",
        "layout": "{split}/{domain}/{video}",
        "splits": SPLITS,
        "real": ["real"],
    }
    cases = []
    for name, arguments, grow, locked in (
        ("folder.scan", layout, grow_tree, "test/swap"),
        ("ffpp.scan", {}, ffpp_tree, "original_sequences"),
        ("ffpp.scan", {}, ffpp_tree, "splits"),
        ("uadfv.scan", {"dataset": "u"}, test_uadfv.extracted, "."),
        ("uadfv.scan", {"dataset": "u"}, test_uadfv.extracted, "real/frames/0000"),
        ("dfdc.scan", {"dataset": "d"}, test_dfdc.copy, "train/dfdc_train_part_0"),
        ("dfdc.scan", {"dataset": "d"}, test_dfdc.copy, "train"),
        (
            "celebdf.scan_pp",
            {"dataset": "c"},
            lambda root: test_celebdf.copy(root, test_celebdf.PP, test_celebdf.PP_TESTED),
            "Celeb-synthesis/FaceSwap",
        ),
        ("wilddeepfake.scan", {}, test_wilddeepfake.tree, "fake_test"),
        ("wilddeepfake.scan", {}, test_wilddeepfake.tree, "fake_test/0/fake"),
        ("df40.scan", {}, test_df40.tree, "DF40_train"),
        ("df40.scan", {}, test_df40.tree, "DF40/simswap/ff"),
        (
            "df40.scan",
            {"lists": True},
            lambda root: test_df40.lists(test_df40.tree(root)),
            "dataset_json",
        ),
        ("deepfakebench.scan", {"file": "FaceForensics++.json"}, benchmark, "dataset_json"),
    ):
        root = tmp_path / f"{len(cases)}"
        root.mkdir()
        grow(root)
        cases.append((name, arguments, str(root), str(root / locked)))
    for *_, locked in cases:
        Path(locked).chmod(0)
    command = [*bound, sys.executable, "-c", READ, json.dumps(cases)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
        cwd=tmp_path,
        check=False,
    )
    for *_, locked in cases:
        Path(locked).chmod(0o755)
    said = done.stdout.splitlines()
    assert len(said) == len(cases), done.stderr
    for (*_, locked), sentence in zip(cases, said, strict=True):
        assert sentence.startswith(locked), sentence
        assert (
            "cannot be read (Permission denied); make it and the folders above it readable"
            in sentence
        )


def test_grow_tree_has_colliding_video_names(tmp_path: Path) -> None:
    root = grow_tree(tmp_path)
    names = [path.name for path in root.glob("train/*/*")]
    assert len(names) == 2 * len(set(names))


def test_folders_of_classes_without_splits_are_met_with_the_layout_that_reads_them(
    tmp_path: Path,
) -> None:
    for domain in ("real", "fake"):
        write_image(tmp_path / domain / "clip" / "0.png", 0, 8)
    scan = functools.partial(folder.scan, tmp_path, "mine", splits={"train": "train"})
    with pytest.raises(InputError, match="names a class") as caught:
        from_entries(scan(layout="{split}/{domain}/{video}"), tmp_path)
    assert "'data.source.layout=\"{domain}/{video}\"' data.source.split=test" in str(caught.value)
    table = from_entries(scan(layout="{domain}/{video}", split="test"), tmp_path).table
    assert set(table.select("label", "domain").rows()) == {(0, "real"), (1, "fake")}
