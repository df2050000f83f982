"""Each source against a generated copy of its real layout."""

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hydra
import polars as pl
import pytest

from fmsd.cli.build import build_selection
from fmsd.cli.files import CONF
from fmsd.data.entries import from_entries
from fmsd.data.frame import Frame, Problem, Video
from fmsd.data.selected_frames import list_frames
from fmsd.data.sources import deepfakebench, ffpp, folder, table
from fmsd.data.sources import synthetic as embedded
from fmsd.data.sources.tree import list_videos
from fmsd.data.synthetic import plan
from fmsd.errors import InputError
from tests import test_celebdf, test_df40, test_dfdc, test_uadfv, test_wilddeepfake
from tests.conftest import ROOT, grow_tree, write_image

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


# ---- folder


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
        ("{split}/{label}/{video}", ["real"], None, r"unknown fields \['label'\]"),
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
            r"None of the folders \['real', 'swap'\] holds real images.*data\.source\.real",
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


# ---- videos in folders


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
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


# ---- table


def test_a_table_of_frames_is_a_source(tree: Path) -> None:
    source = from_entries(
        folder.scan(tree, "mine", "{split}/{domain}/{video}", SPLITS, ["real"]), tree
    )  # pyright: ignore
    source.table.drop("compression").with_columns(identity=pl.lit("ignored")).write_csv(
        tree / "manifest.csv"
    )
    assert from_entries(table.scan(tree, "manifest.csv"), tree).digest() == source.digest()
    source.table.write_parquet(tree / "frames.parquet")
    assert from_entries(table.scan(tree, "frames.parquet"), tree).digest() == source.digest()


def test_a_table_may_list_videos(tmp_path: Path) -> None:
    header = "path,label,dataset,domain,video,index,split\n"
    (tmp_path / "videos.csv").write_text(
        header + "a.mp4,1,d,swap,d/swap/a,0,test\nb/0.png,0,d,real,d/real/b,0,test\n"
    )
    video, frame = table.scan(tmp_path, "videos.csv")
    assert video == Video(tmp_path / "a.mp4", None, 1, "d", "swap", "d/swap/a", "test")
    assert isinstance(frame, Frame)


def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no table .*data\.source\.file=FILE"):
        list(table.scan(tmp_path, "manifest.csv"))
    (tmp_path / "short.csv").write_text("path,label\na.png,0\n")
    with pytest.raises(InputError, match=r"lacks the columns dataset, domain, video, index, split"):
        list(table.scan(tmp_path, "short.csv"))
    header = "path,label,dataset,domain,video,index,split\n"
    (tmp_path / "words.csv").write_text(header + "a.png,real,d,real,v,0,train\n")
    with pytest.raises(InputError, match=r"values of the wrong kind .*labels are 0 or 1"):
        from_entries(table.scan(tmp_path, "words.csv"), tmp_path)
    (tmp_path / "holes.csv").write_text(header + ",0,d,real,v,0,train\n")
    with pytest.raises(InputError, match=r"has empty cells"):
        list(table.scan(tmp_path, "holes.csv"))


# ---- DeepfakeBench JSON


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


# ---- FaceForensics++

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
        monkeypatch.setenv("FMSD_FFPP", "/elsewhere")
        assert hydra.compose("train", choice).data.root == "/elsewhere"


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
    with pytest.raises(InputError, match=r"split was not found in .*data\.source\.splits=PATH"):
        list(ffpp.scan(root))
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


# ---- the embedded dataset


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        name: {split: dict.fromkeys(domains, 1) for split, domains in splits.items()}
        for name, splits in plan.PLAN.items()
    }
    monkeypatch.setattr(plan, "PLAN", small)


def test_the_embedded_dataset_is_the_same_every_time_it_is_drawn(
    tmp_path: Path, small_plan: None
) -> None:
    drawn = [
        from_entries(embedded.scan(tmp_path / name), tmp_path / name).validate()
        for name in ("one", "two")
    ]
    assert drawn[0].digest() == drawn[1].digest()
    for one, other in zip(drawn[0].files(), drawn[1].files(), strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    before = Path(drawn[0].files()[0]).stat().st_mtime_ns
    from_entries(embedded.scan(tmp_path / "one"), tmp_path / "one")
    assert Path(drawn[0].files()[0]).stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "one").iterdir()] == [f"synthetic-v{plan.VERSION}"]


def test_a_killed_drawing_leaves_nothing_that_could_be_mistaken_for_the_dataset(
    tmp_path: Path, small_plan: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "encode_jpeg", fail)
    with pytest.raises(KeyboardInterrupt):
        list(embedded.scan(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_grow_tree_has_colliding_video_names(tmp_path: Path) -> None:
    root = grow_tree(tmp_path)
    names = [path.name for path in root.glob("train/*/*")]
    assert len(names) == 2 * len(set(names))
