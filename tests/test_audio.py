"""The sound of a video beside its label: kept on all ways, told by `fmsd doctor`."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fmsd.cli.main import main
from fmsd.data.audit.table import audio_findings
from fmsd.data.entries import from_entries
from fmsd.data.extraction.source_videos import RECORD_FILE, group_videos
from fmsd.data.frame import LATER_COLUMNS
from fmsd.data.manifest import read_manifest
from fmsd.data.pack import MANIFEST, write_pack
from fmsd.data.sources import extracted, fakeavceleb
from fmsd.errors import InputError
from tests.copies import checks
from tests.test_fakeavceleb import tree
from tests.test_pair_sources import DIGEST, described

TYPES = list(fakeavceleb.TYPES)
SOUND = ["fake", "fake", "real", "real"]


def test_the_sound_is_no_part_of_a_digest_and_earlier_manifests_have_none(tmp_path: Path) -> None:
    manifest = described(tmp_path, audio=SOUND)
    assert manifest.validate().table.sort("video")["audio"].to_list() == ["real"] * 2 + ["fake"] * 2
    assert manifest.digest() == DIGEST
    for lacking in (["audio"], list(LATER_COLUMNS)):
        path = tmp_path / "m.parquet"
        manifest.table.drop(lacking).write_parquet(path)
        old = read_manifest(path, tmp_path).validate()
        assert old.table.columns == manifest.table.columns
        assert set(old.table["audio"]) == {""}
        words = ["index", "data=table", f"data.root={tmp_path}", f"out={path}"]
        assert main(words) == 0  # a manifest of an earlier version is replaced
        assert set(read_manifest(path, tmp_path).table["audio"]) == {"real", "fake"}


def test_a_word_that_is_no_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gives f/0\.png the audio 'Real'"):
        described(tmp_path, audio=["fake", "fake", "Real", "Real"])
    manifest = described(tmp_path)
    wrong = replace(manifest, table=manifest.table.with_columns(audio=pl.lit("Real")))
    with pytest.raises(InputError, match=r"audio values of row 0 .* neither real nor fake"):
        wrong.validate()


def test_crops_and_packs_keep_the_sound(tmp_path: Path) -> None:
    manifest = described(tmp_path, audio=SOUND)
    write_pack(manifest.table, manifest.files(), tmp_path / "pack", 1 << 20)
    assert read_manifest(tmp_path / "pack" / MANIFEST, tmp_path).table.equals(manifest.table)
    assert b'"audio": "fake"' in (tmp_path / "pack" / "00000.tar").read_bytes()
    videos = group_videos(fakeavceleb.scan(tree(tmp_path / "tree"), types=TYPES), [])
    sounds = {source.video: source.audio for source in videos}
    assert [sound for name, sound in sounds.items() if "FakeVideo-RealAudio" in name] == ["real"]
    assert sorted(sounds.values()) == ["fake"] * 3 + ["real"] * 3
    record = {
        "video": "d/r", "label": 0, "dataset": "d", "domain": "real", "split": "test",
        "compression": "", "pair": "", "audio": "fake",
        "frames": [{"index": 0, "status": "face", "file": "000000.png"}],
    }  # fmt: skip
    folder = tmp_path / "crops" / "d" / "r"
    folder.mkdir(parents=True)
    for about, sound in ((record, "fake"), ({**record, "audio": ""}, "")):
        (folder / RECORD_FILE).write_text(json.dumps(about))
        crops = from_entries(extracted.scan(tmp_path / "crops"), tmp_path / "crops")
        assert crops.table["audio"].to_list() == [sound]
    del record["audio"], record["pair"]  # as earlier versions wrote it
    (folder / RECORD_FILE).write_text(json.dumps(record))
    assert from_entries(extracted.scan(tmp_path), tmp_path).table["audio"].to_list() == [""]


def test_doctor_counts_the_images_under_fake_speech(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    manifest = from_entries(fakeavceleb.scan(root, types=TYPES), root).validate()
    assert checks(audio_findings(manifest.table)) == {
        "images under fake speech": (
            "note",
            [
                "fakeavceleb test: 3 videos have fake speech; the images of 2 are labelled fake, "
                "of 1 real"
            ],
        )
    }
    words = ["doctor", "data=fakeavceleb", f"data.root={root}", f"out={tmp_path}/d.json"]
    main([*words, "workers=0", "frames=null"])
    found = json.loads((tmp_path / "d.json").read_text())["findings"]
    told = next(one for one in found if one["id"] == "fake_audio")
    assert "2 videos have fake speech; the images of 2 are labelled fake" in told["examples"][0]
