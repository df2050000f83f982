"""Losses in a training: with every method and wrapper, two views, accumulation, compiled."""

import functools
from pathlib import Path
from typing import Any

import jaxtyping
import polars as pl
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from fmsd.cli.main import main
from fmsd.engine.learner import Learner
from fmsd.errors import InputError
from fmsd.losses.loss import Loss
from fmsd.models.features import FeatureCapture, features_and_logits
from fmsd.optim.erm import ERM
from fmsd.optim.roga import RoGA
from fmsd.optim.sam import SAM
from fmsd.optim.wrapper import OptimizerWrapper
from fmsd.package_files import CONF
from fmsd.peft.full import full
from fmsd.peft.method import Method
from fmsd.peft.norm import norm
from fmsd.runs.configuration import training_settings
from fmsd.runs.folder import Run
from fmsd.types import Frames
from tests.conftest import METHODS, grow_tree, tiny_vit
from tests.test_engine import learner, module, trainer
from tests.test_losses import LOSSES, every_loss
from tests.test_resume import TINY
from tests.test_wrapper_training import by_hand, joined, train, weights

ALL = METHODS | {"norm": norm}


def two_views(*sizes: tuple[int, int]) -> list[Frames]:
    """Batches of two domains with a second view."""
    return [batch._replace(strong=255 - batch.image) for batch in by_hand(*sizes)]


def trained(
    folder: Path,
    loss: Loss,
    batches: list[Frames],
    wrapper: OptimizerWrapper | None = None,
    method: Method = full,
    **changes: Any,
) -> Learner:
    return train(wrapper or ERM(), batches, folder, method, loss=loss, **changes)


@every_loss
@pytest.mark.parametrize("method", ALL)
def test_every_loss_trains_every_method(loss: Loss, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = tiny_vit()
    ALL[method](start, None)  # pyright: ignore
    done = trained(tmp_path, loss, two_views((4, 4)), method=ALL[method])
    assert done.trainer.global_step == 1
    moved = False
    for value, before in zip(done.detector.parameters(), start.parameters(), strict=True):
        assert value.isfinite().all()
        moved |= not torch.equal(value, before)
        assert value.requires_grad or torch.equal(value, before)
    assert moved
    logged = done.trainer.logged_metrics
    assert {f"train/{term}" for term in loss.terms} <= logged.keys()
    if method in ("full", "lora", "norm"):  # without penalties
        parts = [logged[f"train/{term}"] for term in loss.terms]
        torch.testing.assert_close(torch.stack(parts).sum(), logged["train/loss"])


@every_loss
@pytest.mark.parametrize(
    "wrapper", [SAM(0.0), RoGA(0.0, 0.0, warmup_epochs=0)], ids=["sam", "roga"]
)
def test_without_perturbation_a_wrapper_is_erm_under_every_loss(
    wrapper: OptimizerWrapper, loss: Loss, tmp_path: Path
) -> None:
    """RoGA has a pass per domain, in which pairs are those of the domain."""
    batches = two_views((6, 0)) if wrapper.by_domain else two_views((3, 3))
    domains = ["swap"] if wrapper.by_domain else []
    plain = trained(tmp_path, loss, batches, domains=domains)
    wrapped = trained(tmp_path, loss, batches, wrapper, domains=domains)
    for one, other in zip(weights(plain), weights(wrapped), strict=True):
        torch.testing.assert_close(one, other)


def test_logged_terms_are_those_at_the_unperturbed_parameters(tmp_path: Path) -> None:
    loss = LOSSES["all"]
    found = [
        trained(tmp_path, loss, two_views((3, 3)), wrapper).trainer.logged_metrics
        for wrapper in (ERM(), SAM(0.3, warmup_epochs=0))
    ]
    for term in loss.terms:
        torch.testing.assert_close(found[0][f"train/{term}"], found[1][f"train/{term}"])


def test_terms_are_logged_by_domain_as_means_over_its_frames(tmp_path: Path) -> None:
    loss = LOSSES["gend"]
    done = trained(tmp_path, loss, by_hand((6, 2)), RoGA(0.1, warmup_epochs=0))
    logged = done.trainer.logged_metrics
    for term in loss.terms:
        whole = 0.75 * logged[f"train/{term}/blend"] + 0.25 * logged[f"train/{term}/swap"]
        torch.testing.assert_close(whole, logged[f"train/{term}"])


def test_a_repeated_pass_sees_the_same_two_views(tmp_path: Path) -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []
    one = learner(loss=LOSSES["consistency"])
    hook = one.detector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    one.wrapper = SAM(0.3, warmup_epochs=0)
    batches = two_views((2, 2))
    trainer(tmp_path).fit(one, train_dataloaders=DataLoader(batches, batch_size=None))  # pyright: ignore
    hook.remove()
    assert len(seen) == 4
    for image, expected in zip(seen, [batches[0].image, batches[0].strong] * 2, strict=True):
        assert torch.equal(image, expected)


@pytest.mark.parametrize("name", ["bce", "smoothed", "consistency"])
def test_accumulation_is_one_larger_batch_where_the_loss_is_a_mean_of_frames(
    name: str, tmp_path: Path
) -> None:
    parts = two_views((3, 1), (1, 3))
    one = trained(tmp_path, LOSSES[name], [joined(parts)])
    two = trained(tmp_path, LOSSES[name], parts, accumulate=2)
    for large, small in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(large, small)


def test_pairs_of_accumulated_batches_are_those_of_each_batch(tmp_path: Path) -> None:
    """The loss of a step is the mean over its frames."""
    loss = LOSSES["gend"]
    parts = by_hand((3, 1), (1, 1))
    done = trained(tmp_path, loss, parts, accumulate=2, optimizer=idle())
    apart = [
        trained(tmp_path, loss, [part], optimizer=idle()).trainer.logged_metrics for part in parts
    ]
    for term in loss.terms:
        first, second = (each[f"train/{term}"] for each in apart)
        expected = (4 * first + 2 * second) / 6
        torch.testing.assert_close(done.trainer.logged_metrics[f"train/{term}"], expected)


def idle() -> Any:
    return functools.partial(torch.optim.SGD, lr=0.0)


def test_the_features_of_a_training_step_are_those_of_scoring() -> None:
    for changes in ({}, {"cosine_head": True}):
        model = tiny_vit(**changes).eval()
        capture = FeatureCapture(model)
        capture.attach()
        image = by_hand((3, 2))[0].image
        logit = model(image)
        feature = capture.take()
        expected, scored = features_and_logits(model, image)
        torch.testing.assert_close(logit, scored)
        found = functional.normalize(feature) if changes else feature
        torch.testing.assert_close(found, expected)
        assert feature.requires_grad
        assert capture.seen is None  # scoring keeps nothing


@pytest.mark.slow
def test_a_compiled_step_has_the_same_features_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the check of shapes while tests run does not compile
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = tiny_vit()
    capture = FeatureCapture(model)
    capture.attach()
    compiled = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    params = [each for each in model.parameters() if each.requires_grad]
    for image in (batch.image for batch in by_hand((2, 2), (3, 1))):  # the second call, too
        logit, feature = model(image), capture.take()
        plain = torch.autograd.grad(logit.sum() + feature.square().sum(), params)
        traced_logit, traced = compiled(image), capture.take()
        torch.testing.assert_close(traced, feature)
        torch.testing.assert_close(traced_logit, logit)
        found = torch.autograd.grad(traced_logit.sum() + traced.square().sum(), params)
        for one, other in zip(found, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_head_without_a_matrix_is_refused_where_the_loss_needs_features() -> None:
    model = tiny_vit()
    model.backbone.head = torch.nn.Identity()  # pyright: ignore
    with pytest.raises(InputError, match=r"VisionTransformer has no matrix.*loss=bce"):
        FeatureCapture(model)


def test_batches_without_the_view_that_the_loss_needs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.strong is not set"):
        trained(tmp_path, LOSSES["consistency"], by_hand((2, 2)))


def test_loaded_batches_train_with_pairs_and_views(tmp_path: Path) -> None:
    """Through worker processes, in batches of every domain."""
    tree = grow_tree(tmp_path / "data", domains=("real", "swap", "blend"), videos=4)
    data = module(tree, batches="balanced", batch_size=8, workers=1, augment="flip", strong="dfb")
    done = train(
        RoGA(0.1, warmup_epochs=0), data.train_dataloader(), tmp_path, full, loss=LOSSES["all"]
    )
    assert done.trainer.global_step == 3
    assert all(value.isfinite().all() for value in weights(done))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("loss=consistency",), "data.strong is not set; name the augmentation of that view"),
        (("data.strong=dfb",), "data.strong=dfb loads a second view of each frame, which the loss"),
        (("loss=consistency", "data.strong=heavy"), "data.strong=heavy is unknown; choose one of"),
        (("loss.smoothing=2",), "loss.smoothing=2 is out of range; give a number from 0 to 1"),
        (("loss.smoothing=much",), "loss.smoothing=much is no number"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = grow_tree(tmp_path / "data")
    run = tmp_path / "run"
    code = main(["train", *TINY, f"data.root={tree}", f"hydra.run.dir={run}", *words])
    assert code == 2
    assert sentence in capsys.readouterr().err
    assert not (run / "checkpoints").exists()


def write_pairs(tree: Path) -> Path:
    """Lists the frames of a tree in a table, each fake with its real video."""
    lines = ["path,label,dataset,domain,video,index,split,pair"]
    for file in sorted(tree.glob("*/*/*/*.png")):
        split, domain, video = file.relative_to(tree).parts[:3]
        fake = domain != "real"
        pair = f"real/{video}" if fake else ""
        columns = (file, int(fake), "mine", domain, f"{domain}/{video}", file.stem, split, pair)
        lines.append(",".join(map(str, columns)))
    table = tree / "table.csv"
    table.write_text("\n".join(lines))
    return table


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gend", "bias_consist"])
def test_a_method_trains_with_its_loss_and_is_tested_again(method: str, tmp_path: Path) -> None:
    tree = grow_tree(tmp_path / "data", videos=4)
    run, again = tmp_path / "run", tmp_path / "again"
    words = [word for word in TINY if word != "data=folder"]
    words += [f"method={method}", "data=table", f"data.root={tree}", "data.train=[mine]"]
    words += ["data.test=[mine]", f"data.source.file={write_pairs(tree)}", f"hydra.run.dir={run}"]
    assert main(["train", *words]) == 0
    curves = pl.read_csv(run / "logs" / "metrics.csv")
    parts = {"gend": ("uniformity", "alignment"), "bias_consist": ("consistency",)}[method]
    terms = [curves[f"train/{name}"].drop_nulls() for name in ("classification", *parts)]
    total = curves["train/loss"].drop_nulls()
    for step, loss in enumerate(total):
        assert sum(term[step] for term in terms) == pytest.approx(loss, rel=1e-4)
    if method == "bias_consist":  # the weight rises from 0 over the first 0.3 of the steps
        assert terms[1][0] == 0.0
        assert terms[1][-1] > 0.0
    assert main(["evaluate", f"run={run}", f"hydra.run.dir={again}"]) == 0
    assert (again / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


def test_plain_cross_entropy_is_comparable_with_runs_that_had_no_choice(tmp_path: Path) -> None:
    """The digests of recorded results stay valid."""

    def settings(name: str, **chosen: Any) -> dict[str, Any] | None:
        run = Run(tmp_path / name)
        run.folder.mkdir()
        run.config.write_text(yaml.safe_dump({"optimizer": {"lr": 0.1}} | chosen))
        return training_settings(run, {})

    files = CONF / "loss"
    terms = yaml.safe_load((files / "_terms.yaml").read_text())
    before = settings("before")
    assert before == {"optimizer.lr": 0.1}
    assert settings("plain", loss=terms, data={"strong": None}) == before
    others = [
        terms | yaml.safe_load((files / f"{name}.yaml").read_text())
        for name in ("gend", "consistency")
    ]
    others += [terms | {"smoothing": 0.1}, {"_target_": "mine.Loss"}]
    found = [settings(str(place), loss=loss) for place, loss in enumerate(others)]
    assert all(found.count(one) == 1 and one != before for one in found)
    smoothed = settings("smoothed", loss=terms | {"smoothing": 0.1})
    assert smoothed == {"optimizer.lr": 0.1} | {
        f"loss.{key}": value for key, value in (terms | {"smoothing": 0.1}).items()
    }
