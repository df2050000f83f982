"""`fmsd import`: the run that it makes, what other verbs do with it, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fmsd
from fmsd.cli.main import main
from fmsd.data.loading.image import read_image
from fmsd.engine.detectors import load_folded_detector
from fmsd.errors import InputError
from fmsd.models.detector import detector
from fmsd.peft import adapter
from fmsd.report.labels import row_names
from fmsd.runs.folder import Run
from fmsd.tasks import import_detector
from fmsd.tasks.fold import timm_call
from fmsd.tasks.import_detector import whole_folder
from tests.conftest import fmsd_here, grow_tree
from tests.films import film, walk
from tests.published import (
    HALF_STATISTICS,
    NARROW_CLIP,
    ClipEncoder,
    DeepfakeBenchClip,
    Gend,
    noisy,
)
from tests.test_imported import CASES, published_logit

NARROW = [f"backbone.{key}={value}" for key, value in NARROW_CLIP.items()]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return noisy(DeepfakeBenchClip())


@pytest.fixture(scope="module")
def published(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a training: the network, and the states of its optimizer."""
    path = tmp_path_factory.mktemp("published") / "clip_best.pth"
    optimizer = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    states = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(states, path)
    return path


@pytest.fixture(scope="module")
def run(published: Path) -> Path:
    out = published.parent / "run"
    assert main(["import", f"weights={published}", f"out={out}", *NARROW]) == 0
    return out


def test_the_run_holds_the_detector_and_where_it_is_from(run: Path) -> None:
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "run.json", "adapter.safetensors", "adapter.json",
    }  # fmt: skip
    record = Run(run).record(complete=True)
    about = record["imported"]
    assert (about["format"], about["detector"]) == ("deepfakebench", "DeepfakeBench's CLIP")
    assert (about["file"], len(about["sha256"])) == ("clip_best.pth", 64)
    assert record["origin"]["train"] == {"unknown": about["sha256"]}
    assert record["parameters"] == sum(each.numel() for each in load_file_of(run).values())
    assert Run(run).finished
    assert main(["verify", f"run={run}"]) == 0


def load_file_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter.safetensors")


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_run_of_every_format_computes_the_published_logits(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    network = case.build()
    weights, out = tmp_path / "published.pth", tmp_path / "made" / "run"
    torch.save(network.state_dict(), weights)
    given = {"size": 96} | case.given
    words = [f"backbone.{key}={value}" for key, value in given.items()]
    capsys.readouterr()
    assert main(["import", f"weights={weights}", f"out={out}", *words]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    about = Run(out).record()["imported"]["detector"]
    assert about == case.about
    heads = given.get("num_heads", "none")
    assert f"attention heads │ {heads} │" in printed
    assert ("SBI was trained with ImageNet's statistics" in printed) == (name == "efficientnet")
    settings = yaml.safe_load((out / "config.yaml").read_text())["backbone"]
    del settings["_target_"], settings["_partial_"]
    model = load_folded_detector(Run(out), lambda: detector(**settings)).eval()
    image = torch.rand(2, 3, given["size"], given["size"])
    wanted = published_logit(network, image, case.statistics)
    scale = max(float(wanted.abs().max()), 1)
    torch.testing.assert_close(model(image), wanted, atol=1e-5 * scale, rtol=0)


@torch.no_grad()
def test_it_is_loaded_and_scores_as_the_published_network(run: Path, network: nn.Module) -> None:
    loaded = fmsd.load(run, device="cpu")
    crops = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    image = torch.from_numpy(crops).permute(0, 3, 1, 2) / 255
    wanted = published_logit(network, image, HALF_STATISTICS).sigmoid()
    assert loaded.score(crops) == pytest.approx(wanted.numpy(), abs=1e-5)
    facts = loaded.facts
    assert (facts.size, facts.crops.margin, facts.crops.align) == (96, 1.3, True)
    assert (facts.crops_known, facts.meanings, facts.validation) == (True, {}, {})


@torch.no_grad()
def test_the_line_that_fold_prints_builds_the_same_network(
    run: Path, network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fold", f"run={run}", f"out={tmp_path / 'plain.safetensors'}"]) == 0
    line = capsys.readouterr().out.partition("in timm: ")[2].strip()
    assert "clip_quickgelu_224" in line
    model = eval(line, {"timm": timm}).eval()  # as a user pastes it
    model.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    image = torch.rand(2, 3, 96, 96)
    found = model((image - 0.5) / 0.5).squeeze(1)
    torch.testing.assert_close(found, published_logit(network, image, HALF_STATISTICS))


def test_the_line_leaves_out_what_is_not_timms() -> None:
    settings = {"_target_": "x", "name": "tf_efficientnet_b4", "size": 96, "padding": "x", "a": 2}
    assert timm_call(settings, 0) == "timm.create_model('tf_efficientnet_b4', num_classes=0, a=2)"


def test_it_has_no_data_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", f"run={run}"]) == 2
    assert "was imported and has no data of its own; give data=NAME" in capsys.readouterr().err


def test_gend_keeps_the_kind_of_its_head(tmp_path: Path) -> None:
    encoder = noisy(Gend(ClipEncoder(), 24))
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "GenD", "head": "LinearNorm"}')
    words = [f"weights={tmp_path / 'model.safetensors'}", f"out={tmp_path / 'run'}", *NARROW]
    assert main(["import", *words]) == 0
    record = Run(tmp_path / "run").record()
    assert record["imported"]["detector"] == "GenD on CLIP"
    assert any(name.endswith("linear.weight") for name in load_file_of(tmp_path / "run"))
    assert main(["cite", f"run={tmp_path / 'run'}", f"out={tmp_path / 'used.bib'}"]) == 0
    assert "yermakov2026gend" in (tmp_path / "used.bib").read_text()


class Pickled:
    """An object that is no tensor."""


def test_what_cannot_be_imported_leaves_nothing(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "exists").mkdir()
    torch.save({"state_dict": {}, "other": Pickled()}, tmp_path / "objects.pth")
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    before = sorted(path for path in tmp_path.rglob("*"))
    out = f"out={tmp_path / 'run'}"
    cases = {
        (f"weights={published}", f"out={tmp_path / 'exists'}"): "exists; give another folder",
        (f"weights={published}", out): "give the timm model that it belongs to",
        (f"weights={published}", out, "format=gend"): "give format=deepfakebench",
        (f"weights={published}", out, "backbone=vit_tiny"): "of another shape",
        (f"weights={tmp_path / 'none.pth'}", out): "There is no weights file",
        (f"weights={tmp_path / 'x.pth'}", out): "holds no detector of a known format",
        (f"weights={tmp_path / 'objects.pth'}", out): "holds other objects than tensors",
        (f"weights={published}", out, "backbone.weights=a.pth"): "has all weights",
        (
            f"weights={published}",
            out,
            *NARROW,
            "backbone.size=64",
            "backbone.img_size=96",
        ): "cannot compute an image of 64",
        (f"weights={published}", out, *NARROW, "label=' '"): "cannot name a row of a report",
        ("weights=hf://yermandy/GenD", out): "download the file, with its config.json",
    }
    for words, sentence in cases.items():
        assert main(["import", *words]) == 2, words
        assert sentence in capsys.readouterr().err
        assert sorted(path for path in tmp_path.rglob("*")) == before


def test_an_import_that_is_interrupted_leaves_nothing(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter, "write_description", interrupted)  # behind the tensors
    words = [f"weights={published}", f"out={tmp_path / 'made' / 'for' / 'run'}", *NARROW]
    assert main(["import", *words]) == 130
    assert not list(tmp_path.iterdir())


def test_a_folder_that_comes_into_being_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError, match="run exists"), whole_folder(out):
        out.mkdir()
        (out / "mine").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "mine"]


def test_a_file_that_changes_while_it_is_read_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    shutil.copy(published, weights)

    def changed(*_: object) -> None:
        with weights.open("ab") as file:
            file.write(b"x")

    monkeypatch.setattr(import_detector, "check_forward", changed)
    assert main(["import", f"weights={weights}", f"out={tmp_path / 'run'}", *NARROW]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


def test_rows_of_imports_are_told_apart() -> None:
    def record(detector: str, digest: str, *overrides: str, name: str | None = None) -> Any:
        about = {"detector": detector, "sha256": digest * 64, "name": name}
        return {"imported": about, "overrides": ["weights=x", *overrides]}

    def names(*records: Any) -> list[str]:
        return [name.label for name in row_names(records)]

    assert names(
        record("Effort", "a"),
        record("D", "b"),
        record("D", "b", "++backbone.mean=[0,0,0]"),
        record("D", "c", name="SBI"),
    ) == ["imported Effort", "imported D", "imported D, mean 0 and 0 and 0", "imported SBI"]
    assert names(record("D", "b"), record("D", "c")) == [
        "imported D, sha256 bbbbbbbb",
        "imported D, sha256 cccccccc",
    ]


@pytest.mark.slow
def test_a_report_marks_that_the_trainings_of_two_imports_differ(
    run: Path, published: Path, tmp_path: Path
) -> None:
    tree = grow_tree(tmp_path / "tree")
    torch.manual_seed(2)
    torch.save(noisy(DeepfakeBenchClip()).state_dict(), tmp_path / "other.pth")
    mean = "backbone.mean=[0.4,0.4,0.4]"
    imports = {
        "one": [f"weights={published}"],
        "one of another mean": [f"weights={published}", mean],
        "other": [f"weights={tmp_path / 'other.pth'}"],
    }
    for name, words in imports.items():
        out = tmp_path / "runs" / name
        assert main(["import", *words, f"out={out}", *NARROW]) == 0
        tested = ["data=folder", f"data.root={tree}", f"hydra.run.dir={out / 'test'}"]
        assert main(["evaluate", f"run={out}", *tested]) == 0
    report = ["report", f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'report'}", "resamples=20"]
    assert main(report) == 0
    results = pl.read_csv(tmp_path / "report" / "results.csv")
    one, other = (
        Run(tmp_path / "runs" / name).record()["imported"]["sha256"] for name in ("one", "other")
    )
    start = "imported DeepfakeBench's CLIP"
    assert set(results["run"]) == {
        f"{start}, sha256 {one[:8]}",
        f"{start}, mean 0.4 and 0.4 and 0.4, sha256 {one[:8]}",
        f"{start}, sha256 {other[:8]}",
    }
    html = (tmp_path / "report" / "report.html").read_text()
    repeated = html[html.index('id="repeat"') :]
    assert repeated.count("fmsd import weights=") == len(imports)
    assert "0.00 %" not in html[html.index('id="cost"') : html.index('id="protocol"')]
    page = (tmp_path / "report" / "results.md").read_text()
    for digest in (one, other):
        assert f"sha256 {digest[:8]}" in page


def test_an_adapter_without_a_base_needs_every_tensor(run: Path, tmp_path: Path) -> None:
    tensors = load_file_of(run)
    del tensors["norm.weight"]
    save_file(tensors, tmp_path / "adapter.safetensors")
    description = json.loads((run / "adapter.json").read_text())
    description["tensors"].remove("norm.weight")
    (tmp_path / "adapter.json").write_text(json.dumps(description))
    (tmp_path / "run.json").write_text('{"seed": 0}')
    with pytest.raises(InputError, match=r"lacks 1 tensors of its network \(first: 'norm.weight'"):
        load_folded_detector(Run(tmp_path), lambda: detector(**NARROW_CLIP, img_size=96))


def test_it_is_merged_on_the_base_it_was_trained_from(
    run: Path, network: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = network.state_dict()
    near = {name: own[name] + 0.01 * torch.randn_like(own[name]) for name in own}
    torch.save(near, tmp_path / "near.pth")
    words = ["import", f"weights={tmp_path / 'near.pth'}", f"out={tmp_path / 'near'}", *NARROW]
    assert main(words) == 0
    merge = ["merge", f"experts=[{run},{tmp_path / 'near'}]", f"out={tmp_path / 'merged'}"]
    merge += ["merger=average"]
    assert main(merge) == 2
    assert "was imported: it has no base weights" in capsys.readouterr().err
    torch.manual_seed(1)
    torch.save(DeepfakeBenchClip().state_dict(), tmp_path / "base.pth")
    assert main([*merge, f"base={tmp_path / 'base.pth'}"]) == 2  # random: none was trained from it
    assert "so it was trained from others" in capsys.readouterr().err
    torch.save(own, tmp_path / "own.pth")
    assert main([*merge, f"base={tmp_path / 'own.pth'}"]) == 0
    one, other = load_file_of(run), load_file_of(tmp_path / "near")
    merged = load_file_of(tmp_path / "merged")
    for name in ("blocks.0.attn.qkv.weight", "head.weight"):
        torch.testing.assert_close(merged[name], (one[name] + other[name]) / 2)
    both = (Run(folder).record()["imported"]["sha256"] for folder in (run, tmp_path / "near"))
    assert Run(tmp_path / "merged").origin()["train"] == {"unknown": "+".join(sorted(both))}


@pytest.mark.slow
def test_a_published_detector_under_the_protocol(
    run: Path, network: nn.Module, tmp_path: Path
) -> None:
    """Tested, reported, predicted with, exported, folded and prepared for the Hub."""
    tree = grow_tree(tmp_path / "tree")
    words = ["data=folder", f"data.root={tree}", f"hydra.run.dir={tmp_path / 'test'}"]
    tested = fmsd_here("evaluate", f"run={run}", *words, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    assert "imported from clip_best.pth" in tested.stdout
    assert "There are no verdicts" in tested.stdout
    predictions = pl.read_parquet(tmp_path / "test" / "predictions" / "folder.parquet")
    loaded = fmsd.load(run, device="cpu")
    scores = loaded.score(np.stack([read_image(tree / path) for path in predictions["path"]]))
    logits = torch.logit(torch.from_numpy(scores)).numpy()
    assert predictions["logit"].to_numpy() == pytest.approx(logits, abs=1e-4)
    record = Run(tmp_path / "test").record()
    assert record["imported"] == Run(run).record()["imported"]
    assert record["overlap"] == {"folder": None}  # unknown
    report = ("report", f"runs={tmp_path}", f"out={tmp_path / 'report'}", "resamples=20")
    shown = fmsd_here(*report, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert (
        "imported DeepfakeBench's CLIP" in pl.read_csv(tmp_path / "report" / "results.csv")["run"]
    )
    clip = film(tmp_path / "clip.mp4", walk(4))
    onnx, folded = tmp_path / "mine.onnx", tmp_path / "mine.safetensors"
    for verb, out in (("export", onnx), ("fold", folded)):
        assert fmsd_here(verb, f"run={run}", f"out={out}", cwd=tmp_path).returncode == 0
    found = []
    for source in (run, onnx, folded):
        predicted = fmsd_here("predict", f"run={source}", str(clip), "--json", cwd=tmp_path)
        assert predicted.returncode == 0, predicted.stderr
        (row,) = json.loads(predicted.stdout)["tables"]["predictions"]
        assert row["called"] is None
        assert "no threshold of validation data; a number of your own" in row["reason"]
        found.append(row["score"])
    assert found == pytest.approx([found[0]] * 3, abs=1e-4)
    card = tmp_path / "card"
    pushed = fmsd_here("push", f"run={run}", "repo=me/mine", f"out={card}", cwd=tmp_path)
    assert pushed.returncode == 0, pushed.stderr
    text = (card / "README.md").read_text()
    assert "DeepfakeBench's CLIP as published, converted from the file" in text
    assert "The repository holds all weights of the network" in text
    assert "Yan et al., NeurIPS 2023, arXiv 2307.01426" in text
    assert "the published file does not say what it was trained on" in text
    assert "their licence holds, whatever is said here" in text
    for wrong in ("loads those from timm's repository", "| trained |", "before training"):
        assert wrong not in text
    assert "belong to those who published them" in pushed.stderr
    assert str(tmp_path) not in (card / "run.json").read_text()
    assert main(["verify", f"run={card}"]) == 0
