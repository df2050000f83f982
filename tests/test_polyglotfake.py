"""PolyGlotFake: techniques and speakers by the JSON files of its repository."""

import json
from pathlib import Path
from typing import Any

import pytest

from fmsd.data.entries import from_entries
from fmsd.data.frame import Problem
from fmsd.data.sources import polyglotfake
from fmsd.errors import InputError
from tests.conftest import write_image


def real(name: str, source: str, age: int) -> dict[str, Any]:
    about = {"filename": f"{name}.mp4", "source": source}
    return about | {"characters": [{"age": age, "sex": "male"}]}


def fake(raw: str, language: str, tts: str, sync: str) -> dict[str, Any]:
    name = f"{raw}_to_{language}_{tts}.mp4"
    return {"name": name, "raw_video_name": f"{raw}.mp4", "tts_technique": tts, "sync_tech": sync}


REALS = [real("es_1", "film", 60), real("es_2", "film", 60), real("es_3", "film", 30)]
FAKES = [fake("es_1", "en", "Xtts", "Wav2Lip"), fake("es_2", "en", "Bark", "video_retalking")]


def tree(root: Path, fakes: list[dict[str, Any]] = FAKES) -> Path:
    for folder, key, entries in (
        ("real_json_file/{}", "videos", {"es": REALS}),
        ("fake_Json_file/to_{}", "video", {"en": fakes}),
    ):
        for language in polyglotfake.LANGUAGES:
            path = root / "json_file" / f"{folder.format(language)}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            listed = {"language": language, key: entries.get(language, [])}
            path.write_text(json.dumps(listed))
    for name in [row["filename"] for row in REALS] + [row["name"] for row in FAKES]:
        write_image(root / "videos" / name[3:5] / name.removesuffix(".mp4") / "0.png", 0, 8)
    return root


def test_technique_pair_sound_and_speaker(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert not [entry for entry in polyglotfake.scan(root) if isinstance(entry, Problem)]
    manifest = from_entries(polyglotfake.scan(root), root).validate()
    name = "polyglotfake/real/es1_es_"
    assert set(manifest.table.select("video", "pair", "audio").rows()) == {
        (f"{name}1", "", "real"),
        (f"{name}2", "", "real"),
        ("polyglotfake/real/es3_es_3", "", "real"),
        ("polyglotfake/Wav2Lip/es1_es_1_to_en_Xtts", f"{name}1", "fake"),
        ("polyglotfake/video_retalking/es1_es_2_to_en_Bark", f"{name}2", "fake"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync_tech": "wav2lip"}, "sync_tech in .* is 'wav2lip', none of Wav2Lip, video_reta"),
        ({"raw_video_name": "es_2.mp4"}, "says that es_1_to_en_Xtts.mp4 is made from es_2.mp4"),
        ({"name": "fr_9_to_en_X.mp4", "raw_video_name": "fr_9.mp4"}, "no file of real videos"),
    ],
)
def test_lists_that_contradict_are_refused(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        list(polyglotfake.scan(tree(tmp_path, [FAKES[0] | changes])))


def test_without_the_lists_it_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no .*ar\.json") as caught:
        list(polyglotfake.scan(tree(tmp_path), lists="lists"))
    assert "the folder json_file of the dataset's repository" in caught.value.remedy
