"""`fmsd score`: the run of a detector of other code, what counts as failed, and what is refused."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import fmsd
from fmsd.cli.main import main
from fmsd.errors import InputError
from fmsd.inference import external_detector
from fmsd.metrics.ranking import CURVE_METRICS
from fmsd.report.rows import load_rows
from fmsd.runs.folder import Run
from fmsd.runs.predictions import read_predictions
from tests.conftest import ROOT, grow_tree

CODE = '''
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn


class Bright:
    """Means of pixels, of 0 to 255."""

    size, scale, higher = 16, "score", "fake"

    def __call__(self, images):
        assert images.dtype == torch.uint8 and images.shape[1:] == (3, 16, 16)
        return images.double().mean((1, 2, 3))


class Net(nn.Module):
    size, mean, std, scale, higher = 16, [0.5, 0.4, 0.3], (0.2, 0.2, 0.2), "logit", "fake"

    def __init__(self, weights=None, factor=1.0):
        super().__init__()
        self.factor = factor
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        assert images.dtype == torch.float32 and torch.is_inference_mode_enabled()
        return self.factor * self.norm(images).mean((1, 2, 3))[:, None]


class Files:
    """Red at one place of a file, as a probability."""

    takes, scale, higher = "path", "probability", "fake"

    def __call__(self, paths):
        assert all(Path(path).is_absolute() for path in paths)
        return [np.asarray(Image.open(path).convert("RGB"))[:, :, 0].mean() / 255 for path in paths]


class Moody(Bright):
    """Fails in some way on the images whose first pixel has an even red."""

    scale = "logit"

    def __init__(self, how):
        self.how = how

    def __call__(self, images):
        bad = images[:, 0, 0, 0] % 2 == 0
        scores = super().__call__(images) / 100
        if self.how == "crash" and bad.any():
            raise RuntimeError("cannot see it")
        if self.how == "exit" and bad.any():
            raise SystemExit("good bye")
        if self.how == "none":
            scores[bad] = torch.nan
        if self.how == "infinite":
            scores[bad] = -torch.inf
        return scores[~bad].tolist() if self.how == "short" else scores.numpy()


class Single(Bright):
    """Takes one image at a time."""

    def __call__(self, images):
        if len(images) > 1:
            raise ValueError("one at a time")
        return super().__call__(images)


class Outlier(Bright):
    """One image has a score far from all others."""

    def __init__(self):
        self.called = False

    def __call__(self, images):
        scores = super().__call__(images)
        if not self.called:
            scores[1] = 1e30
        self.called = True
        return scores


def constant():
    return lambda images: [0.5] * len(images)


def always(what):
    def fail(images):
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "memory":
            raise RuntimeError("CUDA out of memory")
        raise ValueError("wrong layer")

    return fail


def pairs():
    return lambda images: torch.zeros(len(images), 2)


def words():
    return lambda images: {"logits": images}


def nothing():
    return 3


def broken():
    raise OSError("no such weights")
'''

MODULE = "foreign_detectors_of_tests"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a module of detectors, and data: 40 real and 40 fake test videos."""
    folder = tmp_path_factory.mktemp("score")
    (folder / f"{MODULE}.py").write_text(CODE)
    grow_tree(folder / "data", ("test",), videos=40)
    yield folder
    sys.modules.pop(MODULE, None)


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def damaged(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data, in which one image cannot be decoded."""
    root = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(place / "data", root)
    image = root / "test" / "real" / "test0" / "0.png"
    image.write_bytes(image.read_bytes()[:60])
    return root


DATA = ["data=folder", "data.root=data", "data.workers=0"]


def score(factory: str, out: str | Path, *words: str) -> int:
    return main(["score", f"detector=py:{MODULE}:{factory}", f"out={out}", *DATA, *words])


def predictions(out: str | Path) -> pl.DataFrame:
    return read_predictions(Path(out, "predictions", "folder.parquet"))


def values(out: str | Path, level: str = "frame") -> dict[str, float]:
    table = Run(Path(out)).results().filter(level=level)
    return dict(table.select("metric", "value").rows())


@pytest.fixture(scope="module")
def bright(place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert score("Bright", place / "runs" / "bright") == 0
    return place / "runs" / "bright"


def test_a_function_of_pixels_becomes_a_run(bright: Path, place: Path) -> None:
    names = {path.relative_to(bright).as_posix() for path in bright.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml", "run.json", "results.csv", "results.md", "predictions/folder.parquet",
    }  # fmt: skip
    record = Run(bright).record()
    digest = hashlib.sha256((place / f"{MODULE}.py").read_bytes()).hexdigest()
    assert record["external"] == {
        "kind": "detector", "detector": f"{MODULE}:Bright", "sha256": digest, "files": {},
        "scale": "score", "higher": "fake", "takes": "images", "size": 16, "mean": None,
        "std": None, "margin": None, "levels": ["frame", "video"],
    }  # fmt: skip
    assert record["command"][1] == f"detector=py:{MODULE}:Bright"
    assert record["origin"]["train"] == {"unknown": digest}
    table = predictions(bright)
    assert table.columns[-2:] == ["logit", "content"]
    assert table.height == 160
    from fmsd.data.loading.image import read_image
    from fmsd.data.loading.resizing import resize

    means = np.array(
        [resize(read_image(place / "data" / path), 16).mean() for path in table["path"]]
    )
    order = np.argsort(means)
    assert (np.diff(table["logit"].to_numpy()[order]) >= 0).all()
    assert values(bright)["auc"] == pytest.approx(roc_auc_score(table["label"], means), abs=1e-12)
    assert {*values(bright)} == {*CURVE_METRICS}, "an unknown scale has no 0.5"


def test_report_verify_and_cite_take_it(
    bright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(bright, runs / "bright")
    assert score("Net", runs / "net", "label=the net") == 0
    assert main(["verify", f"runs={runs}"]) == 0
    capsys.readouterr()
    assert main(["report", f"runs={runs}", f"out={tmp_path / 'out'}", "resamples=50"]) == 0
    table = pl.read_csv(tmp_path / "out" / "results.csv")
    assert table["run"].n_unique() == 2
    assert {*table.filter(metric="brier")["run"]} != {*table["run"]}, "only that of the logits"
    assert (tmp_path / "out" / "report.html").is_file() or any((tmp_path / "out").glob("*.html"))
    assert main(["report", f"runs={runs}", "resamples=50", "against=Bright"]) == 0
    assert main(["cite", f"run={runs / 'net'}"]) == 0
    assert "@misc{fmsd," in capsys.readouterr().out


@pytest.mark.parametrize("by", ["by=domain", "metric=brier"])
def test_a_score_of_unknown_scale_has_no_probabilities_in_a_report(
    by: str, bright: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(bright, runs / "bright")
    assert score("Net", runs / "net") == 0
    assert main(["report", f"runs={runs}", f"out={tmp_path / 'out'}", "resamples=20", by]) == 0
    name = "domains.csv" if by == "by=domain" else "results.csv"
    table = pl.read_csv(tmp_path / "out" / name)
    metrics = {run: {*part["metric"]} for (run,), part in table.group_by("run")}
    assert sorted("brier" in found for found in metrics.values()) == [False, True]


def test_scores_of_one_detector_on_several_datasets_are_one_row(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = ["data.name=other", "args.factor=2"]
    assert score("Net", tmp_path / "one", "args.factor=2") == 0
    assert score("Net", tmp_path / "two", *other) == 0
    assert score("Net", tmp_path / "three", "args.factor=3") == 0
    rows = load_rows(tmp_path)
    assert sorted(len(row.runs) for row in rows) == [1, 2]
    (joined,) = (row for row in rows if len(row.runs) == 2)
    assert {*joined.prediction_files} == {"folder", "other"}
    assert joined.folder_of("other") == tmp_path / "two"


def test_a_module_is_normalised_and_does_not_train(place: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"weights")
    assert score("Net", tmp_path / "run", f"args.weights={weights}", "args={factor: 2}") == 0
    record = Run(tmp_path / "run").record()
    assert record["external"]["files"] == {"weights": hashlib.sha256(b"weights").hexdigest()}
    assert (record["external"]["mean"], record["external"]["std"]) == ([0.5, 0.4, 0.3], [0.2] * 3)
    assert (record["parameters"], record["device"]) == (6, "cpu")
    from fmsd.data.loading.image import read_image
    from fmsd.data.loading.resizing import resize

    table = predictions(tmp_path / "run")
    image = resize(read_image(place / "data" / table["path"][3]), 16) / 255
    wanted = 2 * ((image - [0.5, 0.4, 0.3]) / 0.2).mean() / np.sqrt(1 + 1e-5)
    assert table["logit"][3] == pytest.approx(wanted, abs=1e-5)
    assert {"brier", "ece", "acc"} <= {*values(tmp_path / "run")}


def test_a_detector_that_reads_files_gets_their_paths(
    bright: Path, place: Path, tmp_path: Path
) -> None:
    assert score("Files", tmp_path / "run", "data.batch_size=7") == 0
    table = predictions(tmp_path / "run")
    from fmsd.data.loading.image import read_image

    red = read_image(place / "data" / table["path"][5])[:, :, 0].mean() / 255
    assert 1 / (1 + np.exp(-table["logit"][5])) == pytest.approx(red)
    assert Run(tmp_path / "run").record()["external"]["size"] is None
    assert table["content"].equals(predictions(bright)["content"])


def test_the_polarity_turns_the_auc_over(bright: Path, tmp_path: Path) -> None:
    assert score("Bright", tmp_path / "run", "higher=real") == 0
    assert values(tmp_path / "run")["auc"] == pytest.approx(1 - values(bright)["auc"])


@pytest.mark.parametrize("how", ["crash", "exit", "none", "infinite", "short"])
def test_what_goes_wrong_is_an_outcome_of_its_frames(
    how: str, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fmsd.data.loading.image import read_image
    from fmsd.data.loading.resizing import resize

    words = [f"args.how={how}", "coverage=exclude"]
    assert score("Moody", tmp_path / "run", *words) == 0
    table = predictions(tmp_path / "run")
    images = [resize(read_image(place / "data" / path), 16) for path in table["path"]]
    bad = np.array([image[0, 0, 0] % 2 == 0 for image in images])
    assert 0 < bad.sum() < len(bad)
    assert table["outcome"].to_list() == np.where(bad, "failed", "scored").tolist()
    assert table["logit"].is_null().to_list() == bad.tolist()
    means = np.array([image.mean() for image in images]) / 100
    assert table["logit"].drop_nulls().to_numpy() == pytest.approx(means[~bad])
    results = Run(tmp_path / "run").results().filter(level="frame", metric="auc")
    assert results["n_expected"][0] == 160
    assert results["n_failed"][0] == bad.sum()
    good = table.filter(outcome="scored")
    assert results["value"][0] == pytest.approx(roc_auc_score(good["label"], good["logit"]))
    failures = [each.message for each in caplog.records if "count as failed" in each.message]
    assert len(failures) == 1, "the first alone"
    assert ("Traceback" in failures[0]) == (how in ("crash", "exit"))
    assert "external_detector.py" not in failures[0]
    assert main(["verify", f"run={tmp_path / 'run'}"]) == 0


def test_crops_of_another_margin_are_said(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    grow_tree(tmp_path / "data", ("test",), videos=2)
    root = f"data.root={tmp_path / 'data'}"
    assert score("Bright", tmp_path / "unknown", root, "margin=1.3") == 0
    assert "with a margin" not in caplog.text, "nothing is known of a folder of images"
    manifest = read_predictions(tmp_path / "unknown" / "predictions" / "folder.parquet")
    table = manifest.drop("logit", "content").with_columns(pair=pl.lit(""))
    table.write_parquet(tmp_path / "data" / "manifest.parquet")
    crops = {"frames": 8, "sampling": "spread", "margin": 1.0}
    (tmp_path / "data" / "extract.json").write_text(json.dumps(crops))
    extracted = ["data=extracted", root, "data.test=[folder]", "data.train=[folder]"]
    assert score("Bright", tmp_path / "other", *extracted, "margin=1.3") == 0
    assert "cropped with a margin of 1.0, and the detector was made for 1.3" in caplog.text


def test_too_few_scores_are_refused_and_no_run_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("Moody", tmp_path / "made" / "run", "args.how=none") == 2
    assert "failed" in (error := capsys.readouterr().err)
    assert "coverage=" in error
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["run.scores.csv"]


@pytest.mark.parametrize("factory", ["Bright", "Files"])
def test_images_that_cannot_be_read_are_counted(
    factory: str, damaged: Path, tmp_path: Path
) -> None:
    words = [f"data.root={damaged}", "coverage=exclude"]
    assert score(factory, tmp_path / "run", *words) == 0
    table = predictions(tmp_path / "run")
    assert table.filter(outcome="unreadable")["path"].to_list() == ["test/real/test0/0.png"]
    assert table.filter(outcome="scored").height == 159
    assert table["content"].null_count() == 0, "its bytes are there"


def test_logits_that_are_none_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert score("Bright", tmp_path / "run", "scale=logit") == 0
    assert "as those of all logits above 36.8 are; scale=score keeps their order" in caplog.text


def test_a_constant_score_of_different_images_is_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["size=8", "scale=probability", "higher=fake"]
    assert score("constant", tmp_path / "run", *words) == 2
    assert "the same score, so they count as failed" in caplog.text
    assert "have a score (the others:" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert score("constant", tmp_path / "run", *words, "coverage=as_chance") == 0
    assert values(tmp_path / "run")["auc"] == 0.5


def test_refused_scores_are_kept_for_an_import(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert score("Moody", run, "args.how=none", "coverage=refuse") == 2
    kept = tmp_path / "run.scores.csv"
    assert str(kept) in "".join(capsys.readouterr().err.split("\n"))
    before = kept.read_text()
    assert score("Moody", run, "args.how=none", "coverage=refuse") == 2
    assert [path.name for path in tmp_path.iterdir()] == [kept.name], "the same again"
    kept.write_text("mine")
    assert score("Moody", run, "args.how=none", "coverage=refuse") == 2
    assert kept.read_text() == "mine"
    assert (tmp_path / "run.scores2.csv").read_text() == before


@pytest.mark.parametrize(
    ("detector", "given"),
    {
        "Net": ["scale=logit", "higher=fake"],
        "Files": ["scale=probability", "higher=fake"],
        "Outlier": ["scale=score", "higher=real"],
    }.items(),
)
def test_an_import_of_the_written_scores_has_the_same_predictions(
    detector: str, given: list[str], damaged: Path, tmp_path: Path
) -> None:
    words = [*given, f"data.root={damaged}"]
    run, again = tmp_path / "run", tmp_path / "again"
    assert score(detector, run, *words, "coverage=exclude") == 0
    assert score(detector, tmp_path / "refused", *words, "coverage=refuse") == 2
    kept = tmp_path / "refused.scores.csv"
    words = [*given, "coverage=exclude", f"out={again}", "data=folder", f"data.root={damaged}"]
    assert main(["import", f"scores={kept}", *words]) == 0
    assert predictions(run).drop("content").equals(predictions(again))  # which reads no image
    assert values(run) == values(again)
    assert values(run, "video") == values(again, "video")


def test_what_a_killed_command_leaves_is_begun_anew(
    bright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / "left"
    (left / "predictions").mkdir(parents=True)
    shutil.copyfile(bright / "config.yaml", left / "config.yaml")
    (left / "predictions" / "other.parquet").write_text("half")
    assert main(["verify", f"run={left}"]) == 2
    assert "give the command again that began it" in " ".join(capsys.readouterr().err.split())
    assert score("Bright", left, "higher=real") == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "unfinished and different from this one in higher; choose another folder" in error
    assert score("Bright", left) == 0
    assert {path.name for path in (left / "predictions").iterdir()} == {"folder.parquet"}
    assert predictions(left).equals(predictions(bright))
    assert score("Bright", left) == 2
    assert "already holds a run" in capsys.readouterr().err


def test_a_batch_that_is_tried_again_is_said_once_for_each_dataset(
    tmp_path: Path, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert score("Single", tmp_path / "run", "data.batch_size=8") == 0
    said = [each.message for each in caplog.records if "one by one" in each.message]
    assert said == [
        "The detector failed on a batch of 8 frames of folder: ValueError: one at a time "
        f"({MODULE}.py, line {CODE[: CODE.index('one at a time')].count(chr(10)) + 1}). The frames "
        "of such batches are scored one by one."
    ]
    assert predictions(tmp_path / "run").columns[-1] == "content", "all have a score"


def test_seeds_of_a_detector_are_seeds_of_a_row(place: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        assert score("Bright", tmp_path / "runs" / str(seed), f"seed={seed}") == 0
        assert Run(tmp_path / "runs" / str(seed)).record()["seed"] == seed
    assert main(["report", f"runs={tmp_path / 'runs'}"]) == 0


def test_a_detector_that_always_fails_ends_early(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["size=8", "scale=logit", "higher=fake"]
    assert score("always", tmp_path / "run", *words, "args.what=error") == 1
    error = capsys.readouterr().err
    assert "failed on all of the first 32 frames (ValueError: wrong layer (" in error
    assert error.count("Traceback") <= 1
    for factory, text in {"pairs": "1 x 2 numbers for one image", "words": "a dict"}.items():
        assert score(factory, tmp_path / "run", *words) == 1
        assert text in capsys.readouterr().err
    assert score("always", tmp_path / "run", *words, "args.what=memory") == 2
    assert "memory does not suffice" in capsys.readouterr().err
    assert score("always", tmp_path / "run", *words, "args.what=interrupt") == 130
    assert not any(tmp_path.iterdir())


REFUSED = {
    "detector=mine.py": "names no factory",
    "detector=py:nowhere_at_all:x": "There is no module nowhere_at_all",
    f"detector=py:{MODULE}:gone": "has no function or class gone; it has Bright, Net",
    f"detector=py:{MODULE}:nothing": "returns a int, which cannot be called",
    f"detector=py:{MODULE}:broken": "fails: OSError: no such weights (foreign",
    f"detector=py:{MODULE}:Moody": "missing a required argument: 'how'); give them as args.NAME",
    f"detector=py:{MODULE}:Bright args.x=1": "unexpected keyword argument 'x'",
    f"detector=py:{MODULE}:constant": "does not declare the size of its images",
    f"detector=py:{MODULE}:constant size=8": "does not declare its scale",
    f"detector=py:{MODULE}:constant size=8 scale=logit": "does not declare its higher",
    f"detector=py:{MODULE}:Bright scale=logits": "declares logits as its scale",
    f"detector=py:{MODULE}:Bright size=0": "declares 0 as the size",
    f"detector=py:{MODULE}:Bright mean=[1,1,1]": "does not declare its std",
    f"detector=py:{MODULE}:Bright mean=[1,1,1] std=[1,0,1]": "std that is not positive",
    f"detector=py:{MODULE}:Bright margin=-1": "declares -1 as its margin",
    f"detector=py:{MODULE}:Files size=8": "size=8 would have no effect",
    f"detector=py:{MODULE}:Bright backbone=demo_vit": "backbone=demo_vit would have no effect",
    f"detector=py:{MODULE}:Bright coverage=most": "coverage=most is unknown",
    f"detector=py:{MODULE}:Bright device=tpu": "device=tpu is no device",
    f"detector=py:{MODULE}:Bright data.batch_size=0": "data.batch_size=0",
    f"detector=py:{MODULE}:Bright out=runs/bright": "already holds a run",
    f"detector=py:{MODULE}:Bright out=runs/bright/predictions/x": "lies among the files of the run",
    "data=folder": "score needs detector",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(
    words: str, bright: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", f"out={tmp_path / 'run'}", *DATA, *words.split()]) == 2
    error = capsys.readouterr().err
    assert REFUSED[words] in " ".join(error.split())
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
    assert Run(bright).finished


def test_the_working_folder_leaves_the_path_again(bright: Path, place: Path) -> None:
    assert str(place) not in sys.path


VERBS = {
    "evaluate": ["evaluate", "run={run}", "data=folder", "data.root=data"],
    "explain": ["explain", "run={run}", "data=folder", "data.root=data"],
    "predict": ["predict", "run={run}", "data/test/real/test0/0.png"],
    "demo": ["demo", "run={run}"],
    "export": ["export", "run={run}", "out=model.onnx"],
    "fold": ["fold", "run={run}", "out=plain.safetensors"],
    "push": ["push", "run={run}", "repo=someone/name"],
    "resume": ["train", "resume={run}"],
    "merge": ["merge", "merger=average", "experts=[{run},copy]", "out=merged"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_that_need_weights_say_that_there_are_none(
    verb: str, bright: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("copy").exists():
        shutil.copytree(bright, "copy")
    before = {path: path.read_bytes() for path in bright.rglob("*") if path.is_file()}
    assert main([word.format(run=bright) for word in VERBS[verb]]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "holds the scores of an external detector and no weights" in error
    assert {path: path.read_bytes() for path in bright.rglob("*") if path.is_file()} == before


def test_load_says_so_too(bright: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        fmsd.load(bright)


def test_the_example_of_the_page_runs_and_is_that_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    page = (ROOT / "docs" / "verbs" / "score.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example_of_the_page.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    words = ["detector=py:example_of_the_page:Detector", f"out={tmp_path / 'run'}"]
    assert main(["score", *words, "data=folder", f"data.root={place / 'data'}"]) == 0
    sys.modules.pop("example_of_the_page", None)
    assert Run(tmp_path / "run").record()["external"]["size"] == 224
    lines = [line.strip() for line in (external_detector.__doc__ or "").splitlines()]
    declared = [line.strip() for line in code.splitlines() if " = " in line and "#" in line]
    assert len(declared) == 4
    assert {*declared} <= {*lines}


OWN = """
from pathlib import Path

import yaml

from fmsd.engine.detectors import load_folded_detector
from fmsd.models.detector import detector
from fmsd.runs.folder import Run


def own(run):
    settings = yaml.safe_load(Path(run, "config.yaml").read_text())["backbone"]
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    return load_folded_detector(Run(Path(run)), lambda: detector(**settings))
"""


def test_our_own_run_as_a_foreign_detector_has_the_same_results(tmp_path: Path) -> None:
    """The detector normalises bytes itself: no mean and std are given."""
    (tmp_path / "own_run_of_tests.py").write_text(OWN)
    grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=5)
    few = ["trainer=smoke", "method=lora", "backbone=demo_vit", "optimizer.lr=1e-2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert main(["train", *few, *DATA, "hydra.run.dir=trained"]) == 0
        assert main(["evaluate", "run=trained", *DATA, "hydra.run.dir=evaluated"]) == 0
        declared = ["mean=null", "std=null", "size=64", "scale=logit", "higher=fake"]
        named = ["detector=py:own_run_of_tests:own", "args.run=trained"]
        assert main(["score", *named, *declared, *DATA, "out=scored"]) == 0
        shutil.rmtree("trained")
        assert main(["report", "runs=.", "resamples=0", "out=page"]) == 0
    sys.modules.pop("own_run_of_tests", None)
    evaluated, scored = (Run(tmp_path / name) for name in ("evaluated", "scored"))
    one, other = predictions(evaluated.folder), predictions(scored.folder)
    assert one.drop("logit").equals(other.drop("logit"))
    assert one["logit"].to_numpy() == pytest.approx(other["logit"].to_numpy(), abs=1e-6)
    columns = ["dataset", "level", "metric", "value", "n_frames", "n_videos", "n_real_videos"]
    tables = [run.results().select(*columns, "pixels") for run in (evaluated, scored)]
    wanted = tables[0].filter(~pl.col("metric").str.ends_with("_val"))
    assert wanted.drop("value").equals(tables[1].drop("value"))
    assert wanted["value"].to_numpy() == pytest.approx(tables[1]["value"].to_numpy(), abs=1e-6)
    own, foreign = (
        json.loads((run.folder / "run.json").read_text()) for run in (evaluated, scored)
    )
    unknown = ("selection", "augment", "train", "left_out")
    facts = [
        [
            {key: value for key, value in one.items() if key not in unknown}
            for one in stamps.values()
        ]
        for stamps in (own["stamps"], foreign["stamps"])
    ]
    assert facts[0] == facts[1]
