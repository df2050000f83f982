"""The commands of the README, run as a user runs them: train, evaluate, sweep, report, and what is
said when input cannot be used.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from fmsd.cache import cache_folder
from fmsd.models.detector import detector
from tests.conftest import ROOT, fmsd_command, fmsd_here, grow_tree, write_image

pytestmark = pytest.mark.slow

DEMO = {"img_size": 64, "patch_size": 8, "embed_dim": 160, "depth": 6, "num_heads": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`python train.py method=fmsd data=synthetic trainer=smoke`."""
    place = tmp_path_factory.mktemp("work")
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "method=fmsd",
        "data=synthetic",
        "trainer=smoke",
    ]
    done = subprocess.run(
        command,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "AUC, fmsd trained on synthetic" in done.stdout
    (folder,) = (place / "runs" / "fmsd_synthetic").iterdir()
    assert f"The run lies in {folder}" in done.stdout
    return folder


def test_a_run_holds_everything_its_numbers_rest_on(run: Path) -> None:
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "run.json",
        "results.csv",
        "results.md",
        "verdicts.csv",
        "adapter.safetensors",
        "adapter.json",
        "mask.json",
        "mask.png",
        "checkpoints/last.ckpt",
        "logs/metrics.csv",
    } <= names
    assert {"predictions/synthetic.parquet", "predictions/synthetic_shift.parquet"} <= names
    assert not [name for name in names if "partial" in name]
    record = json.loads((run / "run.json").read_text())
    assert record["overrides"] == ["method=fmsd", "data=synthetic", "trainer=smoke"]
    assert record["selection"] == "iid"
    assert record["versions"]["torch"] == torch.__version__
    assert len(record["manifests"]["test"]["synthetic_shift"]["digest"]) == 64
    assert set(record["manifests"]["train"]) == {"synthetic"}
    assert record["trainable"] < 0.05 * record["parameters"]
    assert "## auc" in (run / "results.md").read_text()


def test_results_follow_from_the_predictions_alone(run: Path) -> None:
    results = pl.read_csv(run / "results.csv")
    for dataset in ("synthetic", "synthetic_shift"):
        frames = pl.read_parquet(run / "predictions" / f"{dataset}.parquet")
        score = 1 / (1 + np.exp(-frames["logit"].to_numpy().astype(np.float64)))
        value = results.filter(dataset=dataset, level="frame", metric="auc")["value"].item()
        assert value == pytest.approx(roc_auc_score(frames["label"], score), abs=1e-6)


def test_fold_writes_a_plain_timm_model_with_the_scores_of_the_run(
    run: Path, tmp_path: Path
) -> None:
    done = fmsd_here("fold", f"run={run}", "out=model.safetensors", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = detector(
        "vit_tiny_patch16_224", size=64, weights=tmp_path / "model.safetensors", **DEMO
    )
    scored = pl.read_parquet(run / "predictions" / "synthetic.parquet")
    image = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(cache_folder() / path))).permute(2, 0, 1)
            for path in scored["path"]
        ]
    )
    torch.testing.assert_close(
        model(image), torch.tensor(scored["logit"].to_list()), rtol=1e-3, atol=1e-3
    )
    assert "give out=FILE.safetensors" in refused(
        "fold", f"run={run}", "out=model.pth", cwd=tmp_path
    )


def test_checkpoints_and_adapter_are_small_and_another_base_is_refused(
    run: Path, tmp_path: Path
) -> None:
    base = ROOT / "fmsd" / "models" / "demo_vit.safetensors"
    for path in (run / "adapter.safetensors", run / "checkpoints" / "last.ckpt"):
        assert path.stat().st_size < base.stat().st_size / 5
    weights = load_file(base)
    save_file(weights | {"norm.bias": weights["norm.bias"] + 1}, tmp_path / "other.safetensors")
    shutil.copy(base, tmp_path / "same.safetensors")
    assert "belongs to other base weights" in refused(
        "evaluate", f"run={run}", "base=other.safetensors", cwd=tmp_path
    )
    assert "belongs to other base weights" in refused(
        "fold", f"run={run}", "base=other.safetensors", "out=x.safetensors", cwd=tmp_path
    )
    done = fmsd_here(
        "fold", f"run={run}", "base=same.safetensors", "out=x.safetensors", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fmsd", "method.mask.bias=domain"),
        (
            "method=fmsd",
            "method.constraint=hard",
            "method.mask.bias=random",
            "method.patterns=[attention,mlp]",
        ),
        ("method=masm", "method.every=1"),
        ("method=lora", "method.dora=true", "learner.compiled=true"),
        ("method=norm",),
        ("method=bitfit",),
        ("method=adapter",),
        ("method=vpt", "method.dropout=0.1"),
        ("method=moe_lora", "method.ranks=[1,2]", "method.top=2"),
    ],
)
def test_every_method_trains_and_its_adapter_gives_the_same_numbers_again(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    compiled = "learner.compiled=true" in overrides  # the checks of shapes of the tests are not
    done = (fmsd_command if compiled else fmsd_here)(
        "train",
        "data=synthetic",
        "trainer=smoke",
        "hydra.run.dir=run",
        *overrides,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    again = fmsd_command("evaluate", "run=run", "hydra.run.dir=again", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "results.csv").read_bytes() == (
        tmp_path / "run" / "results.csv"
    ).read_bytes()
    masked = overrides[0] in ("method=fmsd", "method=masm")
    assert (
        (tmp_path / "run" / "mask.json").exists(),
        (tmp_path / "run" / "mask.png").exists(),
    ) == (masked, masked)


def test_a_runs_mask_is_reused(run: Path, tmp_path: Path) -> None:
    mask = run / "mask.json"
    overrides = ("data=synthetic", "trainer=smoke", "hydra.run.dir=run", f"method.mask.file={mask}")
    done = fmsd_here("train", "method=fmsd", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "run" / "mask.json").read_text())["layers"]
        == json.loads(mask.read_text())["layers"]
    )
    said = refused(
        "train",
        "method=fmsd",
        "method.patterns=[mlp]",
        *overrides[:2],
        overrides[3],
        cwd=tmp_path,
    )
    assert "is about other layers than this backbone's candidates" in said


def test_evaluate_reproduces_the_results_from_the_weights(run: Path, tmp_path: Path) -> None:
    """In another process than the training, and with another cache."""
    done = fmsd_here(
        "evaluate",
        f"run={run}",
        f"hydra.run.dir={tmp_path / 'again'}",
        cwd=tmp_path,
        FMSD_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()
    one, other = (
        pl.read_parquet(place / "predictions" / "synthetic.parquet")
        for place in (run, tmp_path / "again")
    )
    assert one.equals(other)
    (tmp_path / "again" / "results.csv").unlink()  # as after a kill
    (tmp_path / "again" / "run.json").unlink()
    done = fmsd_here("evaluate", f"run={run}", f"hydra.run.dir={tmp_path / 'again'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


def test_a_run_of_one_source_is_evaluated_on_data_of_another(tree: Path, tmp_path: Path) -> None:
    overrides = (
        "method=probe",
        "data=folder",
        "data.root=tree",
        "backbone=demo_vit",
        "trainer=smoke",
        "hydra.run.dir=run",
    )
    done = fmsd_here("train", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = fmsd_here(
        "index", "data=folder", f"data.root={tree}", "out=frames.parquet", cwd=tmp_path
    )
    assert manifest.returncode == 0, manifest.stderr
    table = (
        "data=table",
        f"data.root={tree}",
        f"data.source.file={tmp_path / 'frames.parquet'}",
        "data.test=[folder]",
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for data in (table, ()):
        done = fmsd_here("evaluate", "run=../run", *data, cwd=elsewhere)
        assert done.returncode == 0, done.stderr
    whole, again = (
        pl.read_csv(path / "results.csv")
        for path in sorted((tmp_path / "run" / "evaluations").iterdir())
    )
    assert whole["n_frames"].unique().item() == 8
    assert again.equals(pl.read_csv(tmp_path / "run" / "results.csv"))


def test_a_sweep_with_an_experiment_and_its_report(tmp_path: Path) -> None:
    sweep = (
        "-m",
        "experiments=demo",
        "method=full,probe",
        "seed=0,1",
        "trainer=smoke",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    done = fmsd_command("train", *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "sweep").glob("*/run.json"))) == 4
    recorded = [
        yaml.safe_load(path.read_text()) for path in (tmp_path / "sweep").glob("*/config.yaml")
    ]
    rates = {"full": 3e-5, "probe": 3e-3}  # those of the experiment, by method
    assert [config["optimizer"]["lr"] for config in recorded] == [
        rates[config["choices"]["method"]] for config in recorded
    ]
    report = fmsd_here("report", "runs=sweep", "out=tables", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    table = (tmp_path / "tables" / "results.md").read_text()
    assert "| full |" in table
    assert "| probe |" in table
    assert (
        "".join(line for line in table.splitlines() if line.startswith("|")).count("±") == 2 * 2 * 2
    )
    tidy = pl.read_csv(tmp_path / "tables" / "results.csv")
    assert set(tidy["seed"]) == {0, 1}
    one = next((tmp_path / "sweep").glob("*/run.json")).parent
    assert "whose results.csv would be lost" in refused(
        "report", "runs=sweep", f"out={one}", cwd=tmp_path
    )
    evaluated = fmsd_here("evaluate", f"run={one}", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    fmsd_here("report", "runs=sweep", "out=after", cwd=tmp_path)
    assert (tmp_path / "after" / "results.md").read_text() == table


# ---- input that cannot be used


def refused(*arguments: str, cwd: Path) -> str:
    """Runs a command that must be refused: one sentence, exit code 2, nothing left behind."""
    before = {path for path in cwd.rglob("*") if "__pycache__" not in path.parts}
    done = fmsd_here(*arguments, cwd=cwd)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = [
        line
        for line in done.stderr.splitlines()
        if line.startswith("fmsd: ") and line.endswith(".")
    ]
    assert len(said) == 1, done.stderr
    assert {path for path in cwd.rglob("*") if "__pycache__" not in path.parts} == before
    return said[0]


SMOKE = ("trainer=smoke", "backbone=demo_vit")


def test_a_missing_root_and_an_empty_folder(tmp_path: Path) -> None:
    assert "data=ff++ has no root" in refused("train", "data=ff++", cwd=tmp_path)
    assert "There is no folder /nowhere/data" in refused(
        "train", "data=folder", "data.root=/nowhere/data", *SMOKE, cwd=tmp_path
    )
    (tmp_path / "empty").mkdir()
    assert "No frames were found under" in refused(
        "train", "data=folder", "data.root=empty", *SMOKE, cwd=tmp_path
    )


def test_a_pattern_that_matches_no_layer_and_the_weights_of_another_backbone(
    tmp_path: Path,
) -> None:
    root = grow_tree(tmp_path / "data")
    data = ("data=folder", f"data.root={root}")
    assert "matches no matrix of VisionTransformer" in refused(
        "train", *data, *SMOKE, "method.patterns=[nothing]", cwd=tmp_path
    )
    said = refused("train", *data, *SMOKE, "backbone.depth=3", cwd=tmp_path)
    assert "unexpected: blocks.3" in said


def test_one_class_and_a_video_in_two_splits(tmp_path: Path) -> None:
    root = grow_tree(tmp_path / "real", domains=("real",))
    assert "train split of folder has only real frames" in refused(
        "train", "data=folder", f"data.root={root}", *SMOKE, cwd=tmp_path
    )
    tree = grow_tree(tmp_path / "data")
    write_image(tree / "test" / "swap" / "train0" / "9.png", 9)
    said = refused("train", "data=folder", f"data.root={tree}", *SMOKE, cwd=tmp_path)
    assert "folder/swap/train0" in said
    assert "lie in more than one split; leave each video in one split" in said


def test_a_truncated_image_found_while_training_leaves_no_run(tmp_path: Path) -> None:
    tree = grow_tree(tmp_path / "data")
    image = tree / "train" / "swap" / "train1" / "1.png"
    image.write_bytes(image.read_bytes()[:-900])
    for workers in (0, 1):
        said = refused(
            "train",
            "data=folder",
            f"data.root={tree}",
            *SMOKE,
            f"data.workers={workers}",
            cwd=tmp_path,
        )
        assert str(image) in said
        assert said.count("fmsd: ") == 1


def test_a_truncated_test_image_found_after_training_leaves_a_run_that_can_be_evaluated(
    tmp_path: Path,
) -> None:
    tree = grow_tree(tmp_path / "data")
    image = tree / "test" / "swap" / "test1" / "1.png"
    whole = image.read_bytes()
    image.write_bytes(whole[:-900])
    done = fmsd_here(
        "train", "data=folder", "data.root=data", *SMOKE, "hydra.run.dir=run", cwd=tmp_path
    )
    assert done.returncode == 2
    assert str(image) in done.stderr
    assert not (tmp_path / "run" / "results.csv").exists()
    image.write_bytes(whole)
    evaluated = fmsd_here("evaluate", "run=run", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr


def test_an_interrupted_run_keeps_its_best_weights_and_can_be_evaluated(tmp_path: Path) -> None:
    grow_tree(tmp_path / "data")
    overrides = (
        "data=folder",
        "data.root=data",
        *SMOKE,
        "trainer.max_epochs=100000",
        "hydra.run.dir=run",
    )
    command = [sys.executable, str(ROOT / "train.py"), *overrides]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what runs in a shell's background ignores Ctrl-C, and so do its children
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
        and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    try:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()  # it would train for ever beside the other tests
    assert process.returncode == 130, said
    assert f"interrupted by SIGINT; go on with fmsd train resume={tmp_path / 'run'}" in said
    assert f"or test the weights so far with fmsd evaluate run={tmp_path / 'run'}." in said
    evaluated = fmsd_here("evaluate", "run=run", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr


def test_settings_out_of_range(tmp_path: Path) -> None:
    data = ("data=folder", f"data.root={grow_tree(tmp_path / 'data')}", *SMOKE)
    assert "data.frames=0 is out of range; give at least 1, or null for all" in refused(
        "train", *data, "data.frames=0", cwd=tmp_path
    )
    assert "learner.accumulate=0 is out of range; give at least 1" in refused(
        "train", *data, "learner.accumulate=0", cwd=tmp_path
    )
    assert "The optimizer does not take its settings" in refused(
        "train", *data, "optimizer.lr=-1", cwd=tmp_path
    )
    assert "The trainer does not take its settings" in refused(
        "train", *data, "+trainer.gradient_clip_val=1", cwd=tmp_path
    )


def test_unknown_keys_choices_verbs_and_targets(tmp_path: Path) -> None:
    assert "no config key 'method.subspacez' (did you mean method.subspaces?)" in refused(
        "train", "method.subspacez=2", cwd=tmp_path
    )
    assert (
        "There is no method=fmds (did you mean method=fmsd?); choose one of adapter, "
        "bias_consist, bitfit, effort, fmsd, full, gend, lora, lora_xs, masm, moe_lora, norm, "
        "probe, svf, vpt" in refused("train", "method=fmds", cwd=tmp_path)
    )
    assert (
        "no verb 'trian' (did you mean train?); choose one of cite, dashboard, demo, "
        "doctor, evaluate" in refused("trian", cwd=tmp_path)
    )
    assert "needs run; give it as run=PATH" in refused("evaluate", cwd=tmp_path)
    assert (
        "There is no experiments=dmo (did you mean experiments=demo?); choose one of align, demo, "
        "generalise" in refused("train", "experiments=dmo", cwd=tmp_path)
    )
    assert "There is no data=synthetc" in refused(
        "evaluate", "run=x", "data=synthetc", cwd=tmp_path
    )
    assert "unless data=NAME is given" in refused("evaluate", "run=x", "data.root=y", cwd=tmp_path)
    assert "The _target_ 'os.sytem' cannot be imported" in refused(
        "train", "data=synthetic", "wrapper._target_=os.sytem", cwd=tmp_path
    )
    assert "not the folder of a trained run" in refused("evaluate", f"run={tmp_path}", cwd=tmp_path)
    assert "There is no finished run below" in refused("report", f"runs={tmp_path}", cwd=tmp_path)


def test_evaluate_does_not_pretend_to_change_the_run(run: Path, tmp_path: Path) -> None:
    assert "backbone.size=96 would change the run itself" in refused(
        "evaluate", f"run={run}", "backbone.size=96", cwd=tmp_path
    )


def test_a_folder_that_holds_a_run_is_not_overwritten(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    said = refused(
        "train",
        "data=synthetic",
        "trainer=smoke",
        f"hydra.run.dir={run}",
        cwd=run.parent,
    )
    assert "already holds a run; choose another folder with hydra.run.dir=PATH" in said
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


# ---- real faces and real weights


def test_real_faces_train_and_test_across_datasets(real_data: Path, tmp_path: Path) -> None:
    weights = real_data / "weights" / "sam2_hiera_tiny.safetensors"
    done = fmsd_command(
        "train", "experiments=generalise", "hydra.mode=RUN", "method=fmsd", "trainer=smoke",
        "hydra.run.dir=run", f"data.root={real_data / 'faces'}", f"backbone.weights={weights}",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = pl.read_csv(tmp_path / "run" / "results.csv")
    assert set(table["dataset"]) == {"uadfv", "stylegan2", "inpaint", "lipsync", "progan"}
    assert table.filter(dataset="progan", level="frame")["n_frames"].unique().item() == 4
