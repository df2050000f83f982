"""Contamination: training frames among the test frames, as they are, recompressed, resized, cropped
or mirrored; and nothing else.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fmsd.cli.main import main
from fmsd.data import image_hashes
from fmsd.data.entries import from_entries
from fmsd.data.hash_search import COARSE_RADIUS, RADIUS, near_pairs
from fmsd.data.image_hashes import HASHES, read_hashes
from fmsd.data.manifest import Manifest
from fmsd.data.perceptual_hash import MIRROR, hash_distance, perceptual_hashes
from tests.copies import TREE


def picture(seed: int, side: int = 128) -> np.ndarray:
    """A picture with structure at all scales, as photographs have."""
    rng, image = np.random.default_rng(seed), np.zeros((side, side, 3))
    for scale in (3, 6, 12, 24, 48):
        image += cv2.resize(rng.normal(size=(scale, scale, 3)), (side, side)) / scale**0.5
    image = (image - image.min()) / (image.max() - image.min())
    return (255 * image).astype(np.uint8)


def save(path: Path, image: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=quality)


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "recompressed": lambda image: image,
    "smaller": lambda image: resized(image, 64),
    "larger": lambda image: resized(image, 256),
    "mirrored": lambda image: image[:, ::-1],
    "cropped": lambda image: image[5:-5, 5:-5],
    "cropped, mirrored and smaller": lambda image: resized(image[6:-6, 6:-6][:, ::-1], 70),
    "brighter": lambda image: np.clip(image.astype(int) + 20, 0, 255).astype(np.uint8),
}


def manifest(root: Path) -> Manifest:
    found = from_entries(TREE(root), root)
    found.write(root / "manifest.parquet")
    return found


def grow(root: Path, split: str, seeds: Sequence[int]) -> None:
    """One frame per video."""
    for seed in seeds:
        domain = "swap" if seed % 2 else "real"
        save(root / split / domain / f"{seed:03d}" / "0.png", picture(seed))


def compared(root: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """The report of training frames in `root/a` and test frames in `root/b`."""
    files = [
        f"{side}={root / name / 'manifest.parquet'}"
        for side, name in (("train", "a"), ("test", "b"))
    ]
    out = root / "report.json"
    assert main(["doctor", *files, f"out={out}", "workers=0", *words]) == code
    return json.loads(out.read_text())


def test_copies_of_training_frames_are_found_and_other_frames_are_not(tmp_path: Path) -> None:
    grow(tmp_path / "a", "train", range(40))
    grow(tmp_path / "a", "val", range(40, 50))
    grow(tmp_path / "b", "test", range(100, 160))
    for number, (name, change) in enumerate(COPIES.items()):
        save(tmp_path / "b/test/swap" / name / "0.jpg", change(picture(number)), quality=60)
    save(tmp_path / "b/test/swap/of validation/0.jpg", picture(41), quality=60)
    manifest(tmp_path / "a")
    manifest(tmp_path / "b")
    report = compared(tmp_path)
    found = {row["test"].split("/")[-1]: row for row in report["videos"]}
    assert set(found) == {*COPIES, "of validation"}
    for number, name in enumerate(COPIES):
        assert found[name]["train"].split("/")[-1] == f"{number:03d}"
        assert found[name]["mirrored"] == ("mirrored" in name)
        assert (found[name]["near"], found[name]["equal"], found[name]["frames"]) == (1, 0, 1)
        assert found[name]["distance"] <= RADIUS
    assert (report["fatal"], report["warning"]) == (0, 1)
    (row,) = report["datasets"]
    assert (row["near"], row["equal"], row["videos"], row["all_videos"]) == (8, 0, 8, 68)


def test_files_of_the_training_are_fatal_and_count_by_pair_of_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        save(tmp_path / "a/train/real/one" / f"{number}.png", picture(number))
        save(tmp_path / "b/test/real/other name" / f"{number + 10}.png", picture(number % 3))
    manifest(tmp_path / "a")
    manifest(tmp_path / "b")
    report = compared(tmp_path, code=1)
    (row,) = report["videos"]
    assert (row["equal"], row["near"], row["frames"], row["distance"]) == (4, 0, 4, None)
    (finding,) = report["findings"]
    assert (finding["severity"], finding["count"]) == ("fatal", 1)
    assert "mine/real/other name = mine/real/one: 4 of 4 frames" in finding["examples"][0]
    assert "1 fatal" in capsys.readouterr().out


def test_flat_and_unreadable_images_are_counted_and_not_compared(tmp_path: Path) -> None:
    for root, split in (("a", "train"), ("b", "test")):
        grow(tmp_path / root, split, range(10 * len(split), 10 * len(split) + 3))
        black = np.full((64, 64, 3), 10 * len(split), np.uint8)
        save(tmp_path / root / split / "real" / "black" / "0.png", black)
        broken = tmp_path / root / split / "real" / "broken" / "0.jpg"
        save(broken, picture(7))
        broken.write_bytes(broken.read_bytes()[: 900 + len(split)])
        manifest(tmp_path / root)
    report = compared(tmp_path)
    assert (report["videos"], report["flat"]) == ([], {"train": 1, "test": 1})
    findings = {finding["id"]: finding for finding in report["findings"]}
    assert findings["unreadable_files"]["severity"] == "warning"
    assert findings["unreadable_files"]["count"] == 2
    assert findings["flat_images"]["count"] == 2


def test_the_search_finds_every_near_pair_once() -> None:
    """Its pairs are those of a comparison of every hash with every other."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 2**64, (400, 4), dtype=np.uint64)
    other = one[rng.integers(0, 400, 600)]
    for row in other:
        for word, least, most in ((0, 1, 12), (1, 0, 25), (2, 0, 25), (3, 0, 25)):
            for bit in rng.choice(np.arange(least, 64), rng.integers(0, most), replace=False):
                row[word] ^= np.uint64(1) << np.uint64(bit)
    one[:, 0] &= ~np.uint64(1)
    other[:, 0] &= ~np.uint64(1)
    coarse = np.bitwise_count(one[:, None, 0] ^ other[None, :, 0])
    whole = hash_distance(one[:, None], other[None])
    expected = {
        (int(left), int(right), int(whole[left, right]))
        for left, right in np.argwhere((coarse <= COARSE_RADIUS) & (whole <= RADIUS))
    }
    found = near_pairs(one, other)
    pairs = list(zip(*(part.tolist() for part in found), strict=True))
    assert len(pairs) == len(expected) > 100
    assert set(pairs) == expected
    assert len(near_pairs(one[:0], other).one) == len(near_pairs(one, other[:0]).one) == 0


def test_the_hash_of_a_mirror_image_is_that_of_the_image_with_some_bits_changed() -> None:
    for seed in range(20):
        _, hashes = perceptual_hashes(picture(seed))
        _, mirrored = perceptual_hashes(np.ascontiguousarray(picture(seed)[:, ::-1]))
        assert hash_distance(hashes ^ MIRROR, mirrored).max() <= 4  # signs of almost nothing
        assert hash_distance(hashes, mirrored).min() > RADIUS


def test_hashes_of_unchanged_files_are_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMSD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_hashes, "LEAST", 1)
    grow(tmp_path / "a", "train", range(3))
    frames = manifest(tmp_path / "a")
    for file in frames.files():
        os.utime(file, ns=(10**18, 10**18))
    first = read_hashes(frames, 0)
    assert first.select(HASHES).null_count().sum_horizontal().item() == 0
    changed = Path(frames.files()[0])
    size = changed.stat().st_size
    changed.write_bytes(bytes(size))  # equal size and time: nothing shows that it is another file
    os.utime(changed, ns=(10**18, 10**18))
    assert read_hashes(frames, 0).equals(first)
    os.utime(changed, ns=(2 * 10**18, 10**18 + 1))
    again = read_hashes(frames, 0)
    assert again["error"][0] is not None
    assert again[1:].equals(first[1:])


def test_processes_read_the_same_hashes(tmp_path: Path) -> None:
    grow(tmp_path / "a", "train", range(5))
    frames = manifest(tmp_path / "a")
    assert read_hashes(frames, 2).equals(read_hashes(frames, 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train=ff++"], "train= is compared with test=, which is missing"),
        (["test=ff++", "train=ff++", "data=ff++"], "data=ff++ would have no effect"),
        (["test=ff++", "train=ff++", "limit=3"], "limit=3 would have no effect"),
        (["test=ff++", "train=nothing"], "train=nothing is neither a name of data nor a manifest"),
        (["test=ff++", "train=ff++"], "data=ff++ has no root; add data.roots.ff++=PATH"),
        (["test=faces", "train=faces"], "data=faces has no root; add +data.roots.faces=PATH"),
        (["test=ff++", "train=ff++", "data.videos=3"], "give FILE in place of the name"),
        (["test=ff++", "train=ff++", "data.roots.dfd=/x"], "neither train= nor test= names dfd"),
        (["test={b}", "train={b}"], "train={b} has no frames of the splits train and val"),
        (["test={b}", "train={a}", "out=report.txt"], "The report is a JSON file"),
        (["test={b}", "train={a}", "out=notes.json"], "was not written by fmsd doctor"),
        (["test={b}", "train={a}", "workers=-1"], "workers=-1 is out of range"),
    ],
    ids=str,
)
def test_refusals(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {}
    for name, split in (("a", "train"), ("b", "test")):
        grow(tmp_path / name, split, [1, 2])
        manifest(tmp_path / name)
        places[name] = str(tmp_path / name / "manifest.parquet")
    (tmp_path / "notes.json").write_text("{}")
    filled = [word.format(**places) for word in words]
    assert main(["doctor", *filled]) == 2
    assert message.format(**places) in capsys.readouterr().err


def test_a_root_of_the_command_line_is_that_of_its_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the refusal says: it is followed to the letter, and the root is read."""
    grow(tmp_path / "a", "train", range(3))
    manifest(tmp_path / "a")
    words = [f"train={tmp_path / 'a' / 'manifest.parquet'}", "test=celebdf_v1"]
    words.append(f"out={tmp_path / 'found.json'}")
    assert main(["doctor", *words]) == 2
    remedy = re.findall(r"add (\S+)=PATH", capsys.readouterr().err)[0]
    videos = ("Celeb-real/id0_0000", "YouTube-real/00000", "Celeb-synthesis/id0_id1_0000")
    for seed, video in enumerate(videos, 10):
        folder, _, name = video.partition("/")
        save(tmp_path / "tree" / folder / "frames" / name / "000.png", picture(seed))
    lines = [f"{int('real' in video)} {video}.mp4" for video in videos]
    (tmp_path / "tree" / "List_of_testing_videos.txt").write_text("\n".join(lines))
    assert main(["doctor", *words, f"{remedy}={tmp_path / 'tree'}"]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["frames"]["test"] == 3


def test_real_faces_of_different_persons_are_no_duplicates(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Face swaps, generated and photographed faces: no pair among 1.8 million, copies are found."""
    monkeypatch.setenv("FMSD_FACES", str(real_data / "faces"))
    out = tmp_path / "report.json"
    assert main(["doctor", "train=faces", "test=faces", f"out={out}"]) == 0
    report = json.loads(out.read_text())
    assert report["frames"]["train"] * report["frames"]["test"] > 10**6
    assert report["videos"] == []


def test_a_manifest_outside_of_its_folder_is_no_clean_bill(tmp_path: Path) -> None:
    for root, split in (("a", "train"), ("b", "test")):
        grow(tmp_path / root, split, range(3))
        manifest(tmp_path / root)
    shutil.move(tmp_path / "a" / "manifest.parquet", tmp_path / "manifest.parquet")
    words = [
        f"train={tmp_path / 'manifest.parquet'}",
        f"test={tmp_path / 'b' / 'manifest.parquet'}",
    ]
    assert main(["doctor", *words, f"out={tmp_path / 'found.json'}"]) == 1
    findings = json.loads((tmp_path / "found.json").read_text())["findings"]
    (unread,) = (finding for finding in findings if finding["id"] == "unreadable_files")
    assert unread["severity"] == "fatal"
    assert "in its own folder" in unread["remedy"]
