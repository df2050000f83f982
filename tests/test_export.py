"""Exported detectors compute what their run computes, and are never half-written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fmsd
from fmsd.cli.main import main
from fmsd.data.loading.image import read_image
from fmsd.data.loading.resizing import resize
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings
from fmsd.inference.export import CalibrationLayer, PortableDetector, read_pt2, trace, write_onnx
from fmsd.inference.export import write_pt2 as write_program
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.familiarity import fit_bank
from fmsd.inference.metadata import DISTANCE, KEY, LOGIT, PROBABILITY, Metadata
from fmsd.inference.onnx_scorer import OnnxScorer
from fmsd.inference.prediction_page import render_page
from fmsd.inference.sentences import weights_sentences
from fmsd.metrics.score_meaning import Calibration, VideoCounts
from fmsd.models.detector import Detector, detector
from fmsd.models.features import features_and_logits
from fmsd.tasks.export import few_frames
from tests.detectors import train_detector
from tests.films import film, walk
from tests.test_families import BY_NAME, stir

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FAMILIES = {
    "ViT": ("vit_base_patch16_224", 32),
    "CLIP": ("vit_base_patch16_clip_224", 32),
    "DINOv2": ("vit_small_patch14_reg4_dinov2", 32),
    "SigLIP": ("vit_base_patch16_siglip_224", 32),
    "EVA": ("eva02_base_patch14_224", 32),
    "Swin": ("swin_tiny_patch4_window7_224", 32),
    "Hiera": ("hiera_tiny_224", 64),
    "SAM 2": ("sam2_hiera_tiny", 64),
    "EfficientNet": ("tf_efficientnet_lite0", 32),
    "ConvNeXt": ("convnext_tiny", 32),
}

FOREIGN = b"\x08\x0a\x12\x00mine"
"""The bytes of a file of the user's."""

CALIBRATIONS = [
    Calibration("none"),
    Calibration("temperature", 0.3),
    Calibration("platt", 2.0, -1.5),
    Calibration("isotonic", places=[0.2], heights=[-1.0]),
    Calibration("isotonic", places=[-3.0, -1.0, 0.0, 0.0001, 5.0], heights=[-2, -2, -1, 1, 4]),
]


def as_bank(model: Detector, size: int) -> Any:
    """Random features of ten videos, as wide as a detector's."""
    features, _ = features_and_logits(model, torch.zeros(2, 3, size, size, dtype=torch.uint8))
    drawn = np.random.default_rng(0).normal(size=(30, features.shape[1]))
    return fit_bank(drawn, np.arange(30) // 3)


def as_text(facts: DetectorFacts) -> str:
    return json.dumps(facts.to_json())


def metadata(size: int, limit: float | None) -> Metadata:
    facts = DetectorFacts(
        "run", size, CropSettings(), True, "mean", {"a": VideoCounts(3, 4)}, "iid", {}
    )
    return Metadata(facts, limit)


def crops(size: int, faces: list[np.ndarray]) -> torch.Tensor:
    pixels = np.stack([resize(face, size) for face in faces])
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


@pytest.fixture(scope="module")
def faces(data_folder: Path | None) -> list[np.ndarray]:
    """Real faces where there are some, else drawn ones."""
    if data_folder is None:
        return [frame[:128, :128] for frame in walk(4)]
    found = sorted((data_folder / "faces").glob("*/*/*/*.jpg"))
    return [read_image(path) for path in found[:: len(found) // 4][:4]]


@pytest.fixture(scope="module")
def data_folder() -> Path | None:
    import os

    return Path(os.environ["FMSD_TEST_DATA"]) if "FMSD_TEST_DATA" in os.environ else None


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_logits_of_torch(
    name: str, faces: list[np.ndarray], tmp_path: Path
) -> None:
    timm_name, size = FAMILIES[name]
    model = detector(timm_name, size, **BY_NAME[timm_name].arguments).eval()
    stir(model)
    portable = PortableDetector(model, CALIBRATIONS[2], as_bank(model, size))
    about = metadata(size, 0.5)
    write_program(trace(portable, size), about, tmp_path / "a.pt2")
    portable.use_plain_attention()
    write_onnx(trace(portable, size), portable, about, tmp_path / "a.onnx")
    scorer = OnnxScorer(tmp_path / "a.onnx")
    program, again = read_pt2(tmp_path / "a.pt2")
    for batch in (slice(0, 1), slice(1, 4)):
        images = crops(size, faces[batch])
        outputs = scorer.run(images.numpy())
        assert list(outputs) == [LOGIT, PROBABILITY, DISTANCE]
        with torch.no_grad():
            expected, of_program = portable(images), program(images)
        for values, own, other in zip(expected, outputs.values(), of_program, strict=True):
            assert own == pytest.approx(values.numpy(), abs=1e-3)
            assert other.numpy() == pytest.approx(values.numpy(), abs=1e-4)
    assert np.ptp(expected[0].numpy()) > 1e-2  # the images are told apart
    assert scorer.metadata == again == about


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda each: each.kind)
def test_a_calibration_in_a_network_is_the_calibration(calibration: Calibration) -> None:
    logit = torch.cat([torch.linspace(-8, 8, 101), torch.tensor([-1e4, 1e4])])
    expected = calibration(torch.sigmoid(logit.double()).numpy())
    assert CalibrationLayer(calibration)(logit).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_detector(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    out = run.parent / "model.onnx"
    assert main(["export", f"run={run}", f"out={out}"]) == 0
    return out


def test_an_exported_run_is_loaded_with_its_scores_and_facts(
    run: Path, exported: Path, tmp_path: Path
) -> None:
    film(tmp_path / "clip.mp4", walk(6))
    one, other = fmsd.load(run, device="cpu"), fmsd.load(exported)
    assert as_text(other.facts) == as_text(one.facts)
    assert other.unusual_limit == pytest.approx(one.unusual_limit)
    before, after = (each.predict(tmp_path / "clip.mp4", frames=4) for each in (one, other))
    assert [frame.box for frame in after.frames] == [frame.box for frame in before.frames]
    for name in ("score", "distance"):
        values = [[getattr(frame, name) for frame in each.frames] for each in (before, after)]
        assert values[1] == pytest.approx(values[0], abs=1e-5)
    verdict = other.verdict(after)
    assert verdict is not None
    assert verdict.called == one.verdict(before).called  # pyright: ignore[reportOptionalMemberAccess]


def test_nothing_of_this_machine_is_in_the_file(exported: Path) -> None:
    content = exported.read_bytes()
    assert b'"unusual_limit"' in content
    for place in (Path.home(), Path(__file__).parents[1], Path(torch.__file__).parent):
        assert str(place).encode() not in content


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "timm", "lightning", "onnx", "onnxscript"):
    sys.modules[name] = None  # importing it fails
from fmsd.cli.entry import main
sys.exit(main(sys.argv[1:]))
"""


def test_predict_needs_no_torch(run: Path, exported: Path, tmp_path: Path) -> None:
    film(tmp_path / "clip.mp4", walk(6))
    words = ["predict", f"run={exported}", "clip.mp4", "frames=4", "at=0.5"]
    words += [f"out={tmp_path / 'out'}"]
    program = [sys.executable, "-c", WITHOUT_TORCH]
    subprocess.run([*program, *words], check=True, cwd=tmp_path)
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (found,) = content["files"]
    expected = fmsd.load(run, device="cpu").predict(tmp_path / "clip.mp4", frames=4).decides
    assert expected is not None
    assert found["score"] == pytest.approx(expected.score, abs=1e-5)
    assert found["called"] in ("not fake", "fake")
    with pytest.raises(subprocess.CalledProcessError):  # torch is really away
        subprocess.run([*program, "predict", f"run={run}", "clip.mp4"], check=True, cwd=tmp_path)


def test_8_bits_are_smaller_and_their_change_is_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, words = tmp_path / "small.onnx", ["export", f"run={run}", "int8=true"]
    capsys.readouterr()
    assert main([*words, f"out={small}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert OnnxScorer(small).metadata.weights == "int8"
    (row,) = document["tables"]["int8"]
    assert (row["dataset"], row["frames"]) == ("folder", 24)
    assert row["change"] == pytest.approx(row["auc_int8"] - row["auc_float32"])
    assert abs(row["change"]) < 0.2
    (note,) = [note for note in document["notes"] if "MiB" in note]
    assert "A change on 24 frames may be chance" in note
    assert few_frames([500, 1500]) == few_frames([]) == ""
    facts = OnnxScorer(small).facts
    assert "The weights have 8 bits (int8)" in weights_sentences(facts)[0]
    assert "The weights have 8 bits (int8)" in render_page([], [], facts)
    assert as_text(replace(facts, weights="float32")) == as_text(fmsd.load(run, device="cpu").facts)
    image = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32)).astype(np.uint8)
    assert np.isfinite(OnnxScorer(small).run(image)[LOGIT]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_a_program_of_torch_is_written_and_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    for _ in range(2):  # the second replaces its own file
        assert main(["export", f"run={run}", f"out={out}"]) == 0
    network, about = read_pt2(out)
    assert about.facts.name == "run"
    loaded = fmsd.load(run, device="cpu")
    crop = np.full((2, 32, 32, 3), 90, np.uint8)
    logit = network(torch.from_numpy(crop.transpose(0, 3, 1, 2).copy()))[0]
    assert torch.sigmoid(logit).tolist() == pytest.approx(loaded.score(crop).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out=model.bin"], "no name of an exported model"),
        (["out=model.pt2", "int8=true"], "cannot hold"),
        (["out=kept.onnx"], "kept.onnx was not written by fmsd export"),
        (["out=kept.pt2"], "kept.pt2 was not written by fmsd export"),
        (["out={run}/checkpoints/model.onnx"], "lies among the files of the run"),
        (["out=model.onnx", "frames=10"], "frames=10 would have no effect"),
        (["out=model.onnx", "data=celebdf_v2"], "data=celebdf_v2 would have no effect"),
        (["out=model.onnx", "int8=yes"], "int8="),
    ],
)
def test_what_cannot_be_written_is_refused(
    words: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kept.onnx", "kept.pt2"):
        (tmp_path / name).write_bytes(FOREIGN)
    given = [word.format(run=run) for word in words]
    assert main(["export", f"run={run}", *given]) == 2
    assert message in capsys.readouterr().err
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == dict.fromkeys(("kept.onnx", "kept.pt2"), FOREIGN)


def test_a_network_of_convolutions_is_not_quantised(tmp_path: Path) -> None:
    from fmsd.inference.quantise import quantise

    model = detector("convnext_atto", 32, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)).eval()
    portable = PortableDetector(model, None, None)
    write_onnx(trace(portable, 32), portable, metadata(32, None), tmp_path / "a.onnx")
    with pytest.raises(InputError, match="convolutions"):
        quantise(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


class Unknown(torch.nn.Module):
    """Asks for the value of a tensor, which no exporter can follow."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((1, 2, 3))[:, None] * float(image.sum().item() > 0)


def test_a_backbone_that_cannot_be_exported_is_named() -> None:
    model = Detector(Unknown(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(InputError, match="The backbone Unknown cannot be exported") as refusal:
        trace(PortableDetector(model, None, None), 32)
    assert "\n" not in str(refusal.value)


def test_the_metadata_are_one_text(exported: Path) -> None:
    import onnx

    model = onnx.load(exported)
    texts = {each.key: each.value for each in model.metadata_props}
    assert texts.keys() == {KEY}
    assert json.loads(texts[KEY])["name"] == "run"
    assert not any(node.metadata_props for node in model.graph.node)
