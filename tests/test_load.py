"""`fmsd.load`: the scores of a run outside of its tests, and what is known of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fmsd
from fmsd.cli.main import main
from fmsd.data.loading.image import read_image
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.inference.run_facts import run_crops
from fmsd.runs.folder import Run
from fmsd.runs.validation_features import FEATURES, read_features
from tests.detectors import train_detector
from tests.films import film, walk


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_detector(tmp_path_factory.mktemp("load"))


def test_a_loaded_run_scores_frames_as_its_own_tests_did(run: Path) -> None:
    detector = fmsd.load(run, device="cpu")
    tested = pl.read_parquet(run / "predictions" / "folder.parquet")
    files = [run.parent / "crops" / path for path in tested["path"]]
    scores = torch.from_numpy(detector.score(files))
    assert torch.logit(scores).numpy() == pytest.approx(tested["logit"].to_numpy(), abs=1e-5)
    crops = np.stack([read_image(file) for file in files])
    assert detector.score(crops) == pytest.approx(scores.numpy(), abs=1e-6)
    assert detector.score(files[0]) == pytest.approx(scores[:1].numpy(), abs=1e-6)


def test_the_facts_are_those_of_the_training(run: Path) -> None:
    facts = fmsd.load(run, device="cpu").facts
    assert (facts.crops, facts.crops_known) == (CropSettings(64), True)
    assert (facts.size, facts.video_score, facts.selection) == (32, "mean", "iid")
    assert facts.validation == {"folder": (3, 3, 0)}
    assert facts.meanings.keys() == {"frame", "video"}
    assert repr(fmsd.load(run, device="cpu")) == f"<LoadedDetector of {facts.name}>"


def test_a_folded_file_warns_of_unknown_crops_as_its_run_does(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    again = tmp_path / "again"
    shutil.copytree(run, again)
    record = json.loads((again / "run.json").read_text())
    for dataset in record["manifests"]["train"].values():
        del dataset["crops"]
    (again / "run.json").write_text(json.dumps(record))
    assert main(["fold", f"run={again}", f"out={tmp_path / 'folded.safetensors'}"]) == 0
    for source in (again, tmp_path / "folded.safetensors"):
        caplog.clear()
        assert not fmsd.load(source, device="cpu").facts.crops_known
        assert "faces are cropped as fmsd extract does by default" in caplog.text


def test_a_video_is_predicted_and_judged(run: Path, tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", walk(6))
    detector = fmsd.load(run, device="cpu")
    one = detector.predict(tmp_path / "clip.mp4", frames=4)
    assert (one.status, one.sampled, len(one.frames)) == ("scored", 4, 4)
    assert detector.predict(tmp_path / "clip.mp4", frames="all").sampled == 6
    verdict = detector.verdict(one)
    assert verdict is not None
    assert (verdict.called, verdict.probability) == (None, None)
    assert "too few real validation videos for fpr5: 3 of at least 20" in verdict.reason
    assert detector.map_name == "attention rollout"
    assert verdict.unusual is False  # faces of the same drawing as in training
    assert verdict.score == one.persons[0].score
    assert detector.predict([tmp_path], frames=4) == [one]
    with pytest.raises(InputError, match="is a folder"):
        detector.predict(tmp_path)


def test_the_features_are_of_the_validation_frames(run: Path) -> None:
    features = read_features(run / FEATURES)
    validation = pl.read_parquet(run / "validation.parquet")
    assert features.row.tolist() == list(range(len(validation)))
    videos = validation["video"].rank("dense").to_numpy()
    same = videos[:, None] == videos[None, :]
    assert ((features.video[:, None] == features.video[None, :]) == same).all()
    assert np.linalg.norm(features.vectors.astype(np.float32), axis=1) == pytest.approx(1, abs=1e-2)
    detector = fmsd.load(run, device="cpu")
    crops = np.stack([read_image(run.parent / "crops" / path) for path in validation["path"]])
    vectors, _ = fmsd.models.features.features_and_logits(
        detector.scorer.detector, detector.scorer.images(list(crops))
    )
    vectors = torch.nn.functional.normalize(vectors).numpy()
    assert np.abs(vectors - features.vectors).max() < 2e-3
    assert FEATURES in Run(run).record()["files"]


def test_a_run_without_validation_data_has_scores_without_meaning(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = shutil.copytree(run, tmp_path / "bare")
    for name in ("validation.parquet", FEATURES):
        (bare / name).unlink()
    record = json.loads((bare / "run.json").read_text())
    del record["manifests"]["train"]["folder"]["crops"]
    (bare / "run.json").write_text(json.dumps(record))
    detector = fmsd.load(bare, device="cpu")
    assert not detector.facts.meanings
    assert not detector.facts.crops_known
    assert detector.unusual_limit is None
    assert "how the faces of folder were cropped" in caplog.text
    assert "validation.parquet is missing: scores are neither calibrated" in caplog.text
    film(tmp_path / "clip.mp4", walk(2))
    verdict = detector.verdict(detector.predict(tmp_path / "clip.mp4"))
    assert verdict is not None
    assert (verdict.called, verdict.probability, verdict.unusual) == (None, None, None)
    at = detector.verdict(detector.predict(tmp_path / "clip.mp4"), threshold=0.0)
    assert at is not None
    assert at.called == "fake"


def test_a_folded_file_scores_as_its_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "folded.safetensors"
    assert main(["fold", f"run={run}", f"out={out}"]) == 0
    folded, whole = fmsd.load(out, device="cpu"), fmsd.load(run, device="cpu")
    crops = sorted((run.parent / "crops").rglob("*.png"))[:5]
    assert folded.score(crops) == pytest.approx(whole.score(crops), abs=1e-6)
    assert json.dumps(folded.facts.to_json()) == json.dumps(whole.facts.to_json())
    film(tmp_path / "clip.mp4", walk(3))
    verdict = folded.verdict(folded.predict(tmp_path / "clip.mp4"))
    assert verdict is not None
    assert verdict.unusual is None


ALIGNED = {"frames": 32, "sampling": "spread", "size": 128, "margin": 1.5, "align": False}


@pytest.mark.parametrize(
    ("crops", "expected", "said"),
    [
        ({"a": ALIGNED}, CropSettings(128, 1.5, False), ""),
        ({"a": ALIGNED, "b": ALIGNED | {"frames": 8}}, CropSettings(128, 1.5, False), ""),
        ({"a": {"format": "jpg", "quality": 30}}, CropSettings(format="jpg", quality=30), ""),
        ({"a": {"keep_small": False, "min_face": 60}}, CropSettings(min_face=60), ""),
        ({"a": {"keep_small": False, "min_face": 60}, "b": {"min_face": 50}}, CropSettings(), ""),
        ({"a": ALIGNED, "b": ALIGNED | {"format": "jpg"}}, None, "but several (a: "),
        ({"a": {"format": "gif"}}, None, "how the faces of a were cropped"),
        ({"a": {"size": 10**9}}, None, "how the faces of a were cropped"),
        ({"a": {"size": 128}}, CropSettings(128), ""),  # of a version without the other keys
        ({"a": ALIGNED, "b": ALIGNED | {"size": 96}}, None, "but several (a: "),
        ({"a": ALIGNED, "b": None}, None, "how the faces of b were cropped"),
        ({"a": ALIGNED | {"size": "large"}}, None, "how the faces of a were cropped"),
        ({"a": ALIGNED | {"margin": 0.1}}, None, "how the faces of a were cropped"),
        ({}, None, "how the faces of its training data were cropped"),
    ],
)
def test_crops_are_those_on_which_all_training_data_agree(
    crops: dict[str, dict[str, object] | None],
    expected: CropSettings | None,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    datasets = {name: {} if one is None else {"crops": one} for name, one in crops.items()}
    assert run_crops({"manifests": {"train": datasets, "test": {}}}) == expected
    assert said in caplog.text
    assert bool(said) == bool(caplog.text)
    caplog.clear()
    assert run_crops({"manifests": {"train": datasets, "test": {}}}, warn=False) == expected
    assert not caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": None}, "holds weights alone"),
        ({"backbone": "[1]"}, "its metadata are no settings"),
        ({"facts": "{"}, "is damaged"),
        ({"facts": "{}"}, "is damaged"),
        ({"backbone": '{"_target_": "os.system"}'}, "would call os.system"),
        ({"backbone": '{"_target_": "fmsd.models.detector.detector"}'}, "_partial_"),
    ],
)
def test_a_folded_file_with_other_metadata_is_refused(
    run: Path, tmp_path: Path, change: dict[str, str | None], message: str
) -> None:
    out = tmp_path / "folded.safetensors"
    main(["fold", f"run={run}", f"out={out}"])
    with safe_open(out, "pt") as file:
        metadata = {key: value for key, value in file.metadata().items() if key not in change}
    metadata |= {key: value for key, value in change.items() if value is not None}
    save_file(load_file(out), tmp_path / "changed.safetensors", metadata)
    with pytest.raises(InputError, match=message):
        fmsd.load(tmp_path / "changed.safetensors")
    with pytest.raises(InputError, match="There is no file"):
        fmsd.load(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter.safetensors", b"other weights", "is not the file that the run wrote"),
        (FEATURES, b"other features", "is not the file that the run wrote"),
        ("run.json", None, "has no run.json"),
    ],
)
def test_a_run_that_was_changed_is_refused(
    run: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    changed = shutil.copytree(run, tmp_path / "changed")
    if content is None:
        (changed / name).unlink()
    else:
        (changed / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        fmsd.load(changed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_missing_is_named(run: Path, tmp_path: Path, device: str) -> None:
    out = tmp_path / "folded.safetensors"
    main(["fold", f"run={run}", f"out={out}"])
    for source in (run, out):
        with pytest.raises(InputError) as refusal:
            fmsd.load(source, device=device)
        assert refusal.value.message == f"device={device}: torch sees no CUDA device here"
        assert refusal.value.remedy == "give device=cpu"


def test_a_program_for_other_software_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"program for other software.*give its run, or export it"):
        fmsd.load(tmp_path / "model.pt2")


def test_sources_and_devices_that_are_none_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give cpu, cuda, cuda:1 or mps"):
        fmsd.load(run, device="tpu0")
    with pytest.raises(InputError, match="is not the folder of a"):
        fmsd.load(tmp_path)
    with pytest.raises(AttributeError, match="no attribute 'unload'"):
        _ = fmsd.unload  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32 instead of uint8"),
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\) is no image"),
        (np.zeros((0, 4, 3), np.uint8), "is no image"),
        ("missing.png", "missing.png cannot be read"),
    ],
)
def test_images_that_are_none_are_refused(run: Path, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fmsd.load(run, device="cpu").score([image])  # pyright: ignore[reportArgumentType]


def test_importing_the_package_loads_no_library() -> None:
    code = "import sys, fmsd; print(*[m for m in ('torch', 'numpy', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
