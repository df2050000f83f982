"""ONNX files that `fmsd export` did not write, or that were changed, are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fmsd.cli.detectors import load_detector
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.inference.crop_scoring import CropSettings, ScoreError, score_crops
from fmsd.inference.facts import DetectorFacts
from fmsd.inference.loaded_detector import LoadedDetector
from fmsd.inference.metadata import KEY, Metadata
from fmsd.inference.onnx_scorer import CPU, CUDA, OnnxScorer, check_provider, choose_providers
from tests.films import shot

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = 8
FACTS = DetectorFacts("run", SIZE, CropSettings(), False, "mean", {}, "iid", {})


def network(kind: int = onnx.TensorProto.UINT8, factor: float = 0.5, side: int = SIZE) -> Any:
    """A network whose logit is the mean of the pixels, times a factor."""
    make, tensor = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("Cast", ["crops"], ["pixels"], to=onnx.TensorProto.FLOAT),
        make("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        make("Mul", ["mean", "factor"], ["logit"]),
        make("Sigmoid", ["logit"], ["probability"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
        onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor"),
    ]
    outputs = [tensor(name, onnx.TensorProto.FLOAT, ["batch"]) for name in ("logit", "probability")]
    crops = tensor("crops", kind, ["batch", 3, side, side])
    graph = onnx.helper.make_graph(nodes, "graph", [crops], outputs, weights)
    opsets = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.helper.set_model_props(model, {KEY: Metadata(FACTS, None).to_text()})
    return model


def outside(model: Any, location: str) -> None:
    """Makes the factor lie in another file."""
    weight = model.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value


def with_facts(**changes: object) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        content = json.loads(Metadata(FACTS, None).to_text()) | changes
        onnx.helper.set_model_props(model, {KEY: json.dumps(content)})

    return change


def with_text(text: str) -> Callable[[Any], None]:
    return lambda model: onnx.helper.set_model_props(model, {KEY: text})


def test_scores_are_those_of_the_network(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "a.onnx")
    scorer = OnnxScorer(tmp_path / "a.onnx", "cpu")
    found = scorer(np.stack([np.full((30, 30, 3), value, np.uint8) for value in (0, 4)]))
    assert found.score == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    assert np.isnan(found.distance).all()
    assert scorer.facts.to_json() == FACTS.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.metadata_props.clear(), "was not written by fmsd export"),
        (with_text("{"), "no JSON"),
        (with_text("[" * 100_000), "no JSON"),
        (with_text("[1]"), "is damaged"),
        (with_facts(size="8"), "is damaged: 'size'"),
        (with_facts(size=9), "does not take crops of 9 x 9 pixels"),
        (with_facts(unusual_limit=0.5), "does not take"),
        (with_facts(weights="int4"), "is damaged: 'weights'"),
        (with_facts(video_score="best"), "video_score=best is unknown"),
        (with_facts(unusual_limit="far"), "is damaged: 'unusual_limit'"),
        (with_facts(crops={"size": 10**30, "margin": 1.3, "align": True}), "is damaged"),
        (lambda model: outside(model, "secret.bin"), "is no ONNX file that can be run"),
        (lambda model: outside(model, "../secret.bin"), "is no ONNX file that can be run"),
        (lambda model: outside(model, "/etc/passwd"), "is no ONNX file that can be run"),
    ],
)
def test_a_changed_file_is_refused(
    change: Callable[[Any], None], message: str, tmp_path: Path
) -> None:
    for folder in (tmp_path, tmp_path / "in"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.bin").write_bytes(np.float32(0.5).tobytes())
    model = network()
    change(model)
    (tmp_path / "in" / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as refusal:
        OnnxScorer(tmp_path / "in" / "a.onnx")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("model", [network(onnx.TensorProto.FLOAT), network(side=9)])
def test_a_network_with_other_inputs_is_refused(model: Any, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="does not take crops of 8 x 8 pixels"):
        OnnxScorer(tmp_path / "a.onnx")


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    onnx.save(network(factor=float("nan")), tmp_path / "a.onnx")
    scorer = OnnxScorer(tmp_path / "a.onnx")
    with pytest.raises(ScoreError, match="not finite"):
        score_crops(scorer, np.ones((2, 8, 8, 3), np.uint8))
    with pytest.raises(ScoreError, match="not finite"):
        LoadedDetector(FACTS, scorer).score(np.ones((8, 8, 3), np.uint8))


def broken(model: Any) -> None:
    """Makes the network fail on every batch: no 3 x 7 pixels can be made of its own."""
    model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["crops", "side"], ["odd"]))
    model.graph.node[1].input[0] = "odd"
    shape = onnx.numpy_helper.from_array(np.array([1, 3, 7, 7]), "side")
    model.graph.initializer.append(shape)


def test_a_broken_network_is_no_fault_of_a_file(tmp_path: Path) -> None:
    model = network()
    broken(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    cv2.imwrite(str(tmp_path / "a.png"), shot((400, 200), [(2, 200, 10, 180)])[..., ::-1])
    detector = LoadedDetector(FACTS, OnnxScorer(tmp_path / "a.onnx"))
    with pytest.raises(ScoreError, match=r"a\.onnx cannot be run"):
        detector.predict(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<html><body>quota</body></html>", "web page"),
        (b"\x08\x0a\x12\x07nothing", "is no ONNX file that can be run"),
        (bytes(range(256)) * 20, "is no ONNX file that can be run"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=message):
        OnnxScorer(tmp_path / "a.onnx")


def test_a_missing_and_a_huge_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        OnnxScorer(tmp_path / "a.onnx")
    with (tmp_path / "b.onnx").open("wb") as file:
        file.write(b"\x08\x0a\x12\x07nothing")
        file.truncate(2**32)  # sparse
    with pytest.raises(InputError, match=r"has 4\.0 GiB"):
        OnnxScorer(tmp_path / "b.onnx")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = network().SerializeToString()
    for end in range(1, len(whole), 37):
        (tmp_path / "a.onnx").write_bytes(whole[:end])
        with pytest.raises(InputError):
            OnnxScorer(tmp_path / "a.onnx")


def test_the_device_is_the_one_that_was_asked_for() -> None:
    both = [CUDA, CPU]
    assert choose_providers(None, [CPU]) == choose_providers("cpu", both) == [CPU]
    assert choose_providers("cuda:1", both) == [(CUDA, {"device_id": "1"}), CPU]
    assert choose_providers(None, both) == [(CUDA, {"device_id": "0"}), CPU]
    for device, available in (("cuda", [CPU]), ("mps", both)):
        with pytest.raises(InputError, match=f"device={device}"):
            choose_providers(device, available)


def test_a_silent_fall_back_to_the_cpu_is_refused_or_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    both = [CUDA, CPU]
    check_provider(CUDA, choose_providers("cuda", both), "cuda")
    check_provider(CPU, choose_providers("cpu", both), "cpu")
    assert not caplog.text
    with pytest.raises(InputError, match=r"device=cuda:7: .*give device=cpu"):
        check_provider(CPU, choose_providers("cuda:7", both), "cuda:7")
    check_provider(CPU, choose_providers(None, both), None)
    assert "the CPU is used" in caplog.text


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_prediction_in_8_bits_says_where_its_thresholds_are_from(
    weights: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = network()
    with_text(Metadata(FACTS, None, weights).to_text())(model)
    onnx.save(model, tmp_path / "a.onnx")
    cv2.imwrite(str(tmp_path / "face.png"), shot((192, 128), [(1, 40, 16, 96)]))
    assert load_detector(str(tmp_path / "a.onnx"), "cpu").facts.weights == weights
    assert main(["predict", f"run={tmp_path / 'a.onnx'}", str(tmp_path / "face.png")]) == 0
    printed = "".join(capfd.readouterr())
    assert printed.count("were chosen in float32") == (weights == "int8")
