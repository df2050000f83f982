"""Heat maps against naive references, on every kind of backbone, and the command `fmsd explain`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fmsd.cli.main import main
from fmsd.data.manifest import Manifest
from fmsd.data.samples import choose_frames, choose_images, equal_share, limit_domains
from fmsd.engine.embedding import tsne
from fmsd.errors import InputError
from fmsd.figures import explanations
from fmsd.figures.explanations import Tile, overlay_heatmap
from fmsd.models.attribution import default_method, gradcam, rollout, rollout_matrix
from fmsd.models.detector import Detector, detector
from fmsd.models.features import features_and_logits
from fmsd.peft.inject import fold_layers
from fmsd.tasks.explain import coarse_sentence, heatmap_title
from tests.conftest import METHODS, grow_tree, tiny_vit
from tests.foreign_runs import RECORD

PLAIN: dict[str, tuple[int, dict[str, Any]]] = {
    "vit_tiny_patch16_224": (64, {"img_size": 64}),
    "vit_base_patch16_clip_224": (64, {"img_size": 64, "depth": 2}),
    "vit_small_patch14_dinov2": (56, {"img_size": 56}),
    "vit_small_patch14_reg4_dinov2": (56, {"img_size": 56}),
    "deit3_small_patch16_224": (64, {"img_size": 64}),
    "eva02_tiny_patch14_224": (56, {"img_size": 56}),
    "vit_small_patch16_dinov3": (64, {"img_size": 64}),
    "beit_base_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "vit_relpos_small_patch16_224": (64, {"img_size": 64}),
}
"""Plain vision transformers: attention rollout, and Grad-CAM."""

OTHER: dict[str, tuple[int, dict[str, Any]]] = {
    "vit_base_patch16_siglip_224": (64, {"img_size": 64, "depth": 2}),  # pools by attention
    "vit_dpwee_patch16_reg1_gap_256": (64, {"img_size": 64}),  # differential attention
    "sam2_hiera_tiny": (128, {}),
    "swin_tiny_patch4_window7_224": (64, {"img_size": 64}),
    "swinv2_tiny_window8_256": (64, {"img_size": 64}),
    "tf_efficientnet_lite0": (64, {}),
    "resnet18": (64, {}),
    "convnext_atto": (64, {}),
    "mobilevit_xxs": (64, {}),
}
"""Backbones with a map of features, and no rollout."""


def made(name: str, size: int, arguments: dict[str, Any]) -> tuple[Detector, Tensor]:
    model = detector(name, size, **arguments).eval()
    for parameter in model.head().parameters():
        nn.init.normal_(parameter, std=0.5)  # some begin with zeros, which no feature has a part in
    return model, pixels(2, size)


def pixels(count: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


# ---- rollout


def attentions(backbone: Any, image: Tensor) -> list[np.ndarray]:
    """The attention of every block of a plain ViT, averaged over heads, from its definition."""
    found, x = (
        [],
        backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(image)))),
    )
    for block in backbone.blocks:
        own = block.attn
        query, key, _ = own.qkv(block.norm1(x)).chunk(3, -1)
        heads = []
        for head in range(own.num_heads):
            place = slice(head * own.head_dim, (head + 1) * own.head_dim)
            scores = query[..., place] @ key[..., place].mT / own.head_dim**0.5
            heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
        found.append((sum(heads) / len(heads)).numpy())
        x = block(x)
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reg_tokens": 2},
        {"global_pool": "avg", "class_token": False, "reg_tokens": 2},
        {"global_pool": "avg"},
    ],
)
@torch.no_grad()
def test_rollout_is_the_product_of_explicit_attention_matrices(changes: dict[str, Any]) -> None:
    model = tiny_vit(depth=3, **changes).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    image = pixels(2, 32)
    layers, backbone = (
        attentions(model.backbone, (image / 255 - model.mean) / model.std),
        model.backbone,
    )
    prefix: Any = backbone.num_prefix_tokens
    found = rollout(model, image).numpy()
    assert found.shape == (2, 4, 4)
    for number in range(2):
        joint = np.eye(prefix + 16)
        for layer in layers:
            joint = (0.5 * layer[number] + 0.5 * np.eye(prefix + 16)) @ joint
        np.testing.assert_allclose(joint.sum(1), 1, rtol=1e-5)
        scored = joint[0] if backbone.global_pool == "token" else joint[prefix:].mean(0)
        np.testing.assert_allclose(found[number].flatten(), scored[prefix:], rtol=1e-4, atol=1e-7)
    assert found.std() > 1e-4


def test_rows_of_a_rollout_sum_to_one_and_no_attention_leaves_each_token_to_itself() -> None:
    layers = [torch.rand(2, 5, 5).softmax(-1) for _ in range(4)]
    joint = rollout_matrix(layers)
    torch.testing.assert_close(joint.sum(-1), torch.ones(2, 5))
    assert (joint > 0).all()
    torch.testing.assert_close(
        rollout_matrix([torch.eye(5).expand(2, 5, 5)] * 3), torch.eye(5).expand(2, 5, 5)
    )


@torch.no_grad()
def test_rollout_finds_the_one_patch_that_the_class_token_looks_at() -> None:
    model = tiny_vit(depth=1, num_heads=1).eval()
    backbone: Any = model.backbone
    for parameter in backbone.parameters():
        parameter.zero_()
    attention, backbone.blocks[0].norm1 = backbone.blocks[0].attn, nn.Identity().eval()
    backbone.patch_embed.proj.weight[0] = (
        1 / 64
    )  # the first channel of a token is its patch's brightness
    attention.qkv.bias[0] = 20  # every query asks for it
    attention.qkv.weight[24, 0] = 1  # every key tells it
    image = torch.zeros(1, 3, 32, 32)
    image[..., 8:16, 24:32] = 1
    heat = rollout(model, image)[0]
    assert heat.argmax() == 1 * 4 + 3
    assert heat[1, 3] > 0.4
    assert heat.sum() - heat[1, 3] < 0.1


# ---- Grad-CAM


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
@torch.no_grad()
def test_gradcam_of_a_linear_head_on_pooled_features_is_its_closed_form(name: str) -> None:
    model, image = made(name, *OTHER[name])
    backbone: Any = model.backbone
    weight = next(
        module for module in model.head().modules() if isinstance(module, nn.Linear)
    ).weight[0]
    weight += 0.5
    maps = backbone.forward_features((image / 255 - model.mean) / model.std)
    maps = maps.permute(0, 3, 1, 2) if name.startswith("swin") else maps
    expected = torch.einsum("c,bchw->bhw", weight, maps).clamp_min(0) / maps.shape[2:].numel()
    torch.testing.assert_close(gradcam(model, image), expected)
    assert expected.any()


class RedPatch(nn.Module):
    """Scores how red the reddest place is. Its first step is in place, as in many networks."""

    def __init__(self) -> None:
        super().__init__()
        self.red = nn.Conv2d(3, 2, 4, 4)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 1)
        with torch.no_grad():
            self.red.weight.zero_()
            self.red.weight[0, 0], self.red.weight[1, 2], self.red.bias[:] = 1 / 16, 1 / 16, 0
            self.head.weight[:], self.head.bias[:] = torch.tensor([[3.0, -1.0]]), 0

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward_features(self, x: Tensor) -> Tensor:
        return self.act(self.red(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x).mean((2, 3)))


class Twice(RedPatch):
    """Calls one of its layers twice."""

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(self.act(x.clone()))


@pytest.mark.parametrize("layer", [None, "red", "act"])
def test_gradcam_finds_the_patch_that_decides(layer: str | None) -> None:
    model = Detector(RedPatch(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).eval()
    image = torch.zeros(2, 3, 32, 32)
    image[0, 0, 4:8, 20:24] = 1  # red speaks for fake
    image[:, 2, 16:20, 8:12] = 1  # blue for real
    heat = gradcam(model, image, layer)
    assert heat[0].argmax() == 1 * 8 + 5
    assert heat[0].count_nonzero() == 1
    assert not heat[1].any()
    if layer != "red":  # before the rectifier most places have no gradient
        torch.testing.assert_close(heat[0, 1, 5], torch.tensor(3.0 / 64))


def test_gradcam_of_a_chosen_layer_has_its_size_whatever_learns() -> None:
    model, image = made("resnet18", *OTHER["resnet18"])
    model.requires_grad_(False)
    assert gradcam(model, image, "layer2").shape == (2, 8, 8)
    model.requires_grad_(True)
    gradcam(model, image, "layer2")
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- all backbones


def untouched(act: Callable[[], object], model: Detector, image: Tensor) -> None:
    """Runs `act`, which must leave outputs, state, modes and hooks as they were."""

    def state() -> dict[str, Any]:
        return {
            "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
            "marks": [
                (
                    name,
                    module.training,
                    getattr(module, "fused_attn", None),
                    len(module._forward_hooks),
                    len(module._forward_pre_hooks),
                )
                for name, module in model.named_modules()
            ],
            "learning": [
                (parameter.requires_grad, parameter.grad) for parameter in model.parameters()
            ],
            "own": sorted(vars(model.backbone)),
        }

    before, logit = state(), model(image)
    act()
    after = state()
    assert all(
        torch.equal(after["tensors"][name], tensor)
        for name, tensor in before.pop("tensors").items()
    )
    after.pop("tensors")
    assert after == before
    assert torch.equal(model(image), logit)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLAIN))
def test_plain_transformers_have_both_maps(name: str) -> None:
    model, image = made(name, *PLAIN[name])
    assert default_method(model) == "rollout"
    for draw, whole in ((rollout, True), (gradcam, False)):
        maps = []
        untouched(lambda draw=draw, maps=maps: maps.append(draw(model, image)), model, image)
        assert maps[0].shape == (2, 4, 4)
        assert (maps[0] >= 0).all()
        assert maps[0].any()
        assert not whole or ((maps[0].sum((1, 2)) > 0.3) & (maps[0].sum((1, 2)) < 1.0001)).all()


@pytest.mark.parametrize("name", list(OTHER))
def test_other_backbones_have_gradcam_and_rollout_is_refused(name: str) -> None:
    model, image = made(name, *OTHER[name])
    assert default_method(model) == "gradcam"
    maps = []
    untouched(lambda: maps.append(gradcam(model, image)), model, image)
    assert maps[0].shape in ((2, 2, 2), (2, 4, 4))
    assert (maps[0] >= 0).all()
    with pytest.raises(InputError, match=r"is not possible, as .+set how=gradcam"):
        rollout(model, image)


@pytest.mark.parametrize("method", ["fmsd", "lora"])
def test_an_adapted_detector_is_explained_as_its_folded_one(method: str) -> None:
    model = tiny_vit()
    METHODS[method](model, None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
    model.eval()
    image = pixels(2, 32)
    before = rollout(model, image), gradcam(model, image), features_and_logits(model, image)[0]
    fold_layers(model.backbone).eval()
    for one, other in zip(
        before,
        (rollout(model, image), gradcam(model, image), features_and_logits(model, image)[0]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_explained_is_refused_and_leaves_no_trace() -> None:
    model, image = made("resnet18", *OTHER["resnet18"])

    def refused(sentence: str, layer: str | None = None, image: Tensor = image) -> None:
        def act() -> None:
            with pytest.raises(InputError, match=sentence):
                gradcam(model, image, layer)

        untouched(act, model, image)

    refused(r"layer=layer5 is none of ResNet's; close ones are layer\d", "layer5")
    refused("layer= is none", "")
    refused("which does not tell its places in an image of 64 x 64; give another layer=NAME", "fc")
    refused(
        "has no part in the logit", "layer1.0.act1"
    )  # the norm at the end of its branch begins at zero
    refused("one place only for the whole image", None, pixels(1, 32))
    with pytest.raises(InputError, match="The output of act of Twice is not one tensor a pass"):
        gradcam(Detector(Twice(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).eval(), image, "act")
    vit = tiny_vit().eval()
    with pytest.raises(InputError, match="has no part in the logit"):
        gradcam(vit, pixels(1, 32), "norm")  # the head reads the class token alone
    with pytest.raises(InputError, match="pools by 'map'"):
        rollout(tiny_vit(global_pool="map").eval(), pixels(1, 32))
    with pytest.raises(InputError, match="has no part in the logit"):
        gradcam(
            detector("sam2_hiera_tiny", 128).eval(), pixels(1, 128)
        )  # its head is zero until it is trained
    for draw in (rollout, gradcam):
        with pytest.raises(ValueError, match="training mode"):
            draw(tiny_vit().train(), pixels(1, 32))


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto", "sam2_hiera_tiny"]
)
@torch.no_grad()
def test_features_are_what_the_head_turns_into_the_logit(name: str) -> None:
    model, image = made(name, *(PLAIN | OTHER)[name])
    found, logit = features_and_logits(model, image)
    last = [module for module in model.head().modules() if isinstance(module, nn.Linear)][-1]
    torch.testing.assert_close(last(found).squeeze(-1), logit)
    assert torch.equal(logit, model(image))


# ---- which frames, and their pictures


def table(sizes: dict[str, tuple[int, int]]) -> Manifest:
    """Domains of so many videos with so many frames each, in any order."""
    rows = [
        (
            f"{domain}/{video}/{index}.png",
            int(domain != "real"),
            "set",
            domain,
            f"set/{domain}/{video:03}",
            index,
            "test",
            "",
        )
        for domain, (videos, count) in sizes.items()
        for video in range(videos)
        for index in range(count)
    ]
    columns = ("path", "label", "dataset", "domain", "video", "index", "split", "compression")
    return Manifest(
        pl.DataFrame(rows, schema=columns, orient="row").sample(fraction=1, shuffle=True, seed=1),
        Path("/nowhere"),
    )


def test_pictures_are_of_different_videos_of_every_domain_and_the_same_again() -> None:
    manifest = table({"swap": (9, 5), "real": (20, 3), "puppet": (2, 1)})
    chosen = choose_images(manifest, 4, 0).table
    assert chosen["domain"].to_list() == ["real"] * 4 + ["puppet"] * 2 + ["swap"] * 4
    assert chosen["video"].n_unique() == 10
    stretches = [int(video[-3:]) // 5 for video in chosen.filter(domain="real")["video"]]
    assert stretches == [0, 1, 2, 3]
    again = Manifest(manifest.table.sort("path"), manifest.root)
    assert choose_images(again, 4, 0).table["path"].equals(chosen["path"])
    assert not choose_images(manifest, 4, 1).table["path"].equals(chosen["path"])


def test_frames_are_spread_over_domains_and_datasets() -> None:
    tests = {
        "one": table({"real": (30, 10), "swap": (3, 2)}),
        "two": table({"real": (1, 5), "swap": (40, 10)}),
    }
    chosen = choose_frames(tests, 100)
    counts = {
        name: dict(manifest.table.group_by("domain").len().rows())
        for name, manifest in chosen.items()
    }
    assert counts == {"one": {"real": 44, "swap": 6}, "two": {"real": 5, "swap": 44}}
    assert chosen["one"].table.filter(domain="real")["video"].n_unique() == 30
    assert {name: len(manifest) for name, manifest in choose_frames(tests, 10**6).items()} == {
        "one": 306,
        "two": 405,
    }
    for frames in (0, 3):
        with pytest.raises(InputError, match=f"frames={frames} leaves too few"):
            choose_frames(tests, frames)


def test_the_equal_share_is_the_largest_that_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        counts, total = rng.integers(1, 20, rng.integers(1, 6)).tolist(), int(rng.integers(0, 60))
        fitting = [
            share
            for share in range(max(counts) + 1)
            if sum(min(count, share) for count in counts) <= total
        ]
        assert equal_share(counts, total) == max(fitting)


def test_an_image_glows_where_its_heat_map_is_highest() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 5
    change = np.abs(
        overlay_heatmap(image, heat) - overlay_heatmap(image, np.full((4, 4), 0.3, np.float32))
    ).sum(2)
    assert np.unravel_index(change.argmax(), change.shape)[0] in range(8, 16)
    assert np.unravel_index(change.argmax(), change.shape)[1] in range(16, 24)
    assert change[-8:].max() == 0
    np.testing.assert_allclose(
        overlay_heatmap(image, np.zeros((4, 4), np.float32)), image / 255 * 0.9
    )


def test_the_picture_has_a_row_a_domain_and_marks_what_is_wrong() -> None:
    heat = np.eye(2, dtype=np.float32)
    tiles = [
        Tile(row, label, score, np.zeros((8, 8, 3), np.uint8), heat)
        for row, label, score in (("real", 0, 0.7), ("real", 0, 0.1), ("swap", 1, 0.6))
    ]
    panels = explanations.plot_heatmaps(tiles, "Title").axes
    assert [axes.get_title() for axes in panels] == ["0.70 wrong", "0.10", "0.60", ""]
    assert [axes.get_ylabel() for axes in panels] == ["real\n(real)", "", "swap\n(fake)", ""]
    shown: Any = panels[0].images[0].get_array()
    assert shown.shape == (8, 16, 3)


def test_every_domain_of_a_dataset_lies_in_its_panel() -> None:
    points = pl.DataFrame(
        {
            "dataset": ["one", "one", "two", "two"],
            "domain": ["real", "swap", "real", "puppet"],
            "x": [0.0, 1, 2, 3],
            "y": [0.0, 1, 2, 3],
        }
    )
    one, two = explanations.plot_features(points, "Title").axes
    assert (one.get_title(loc="left"), two.get_title(loc="left")) == ("one", "two")
    shown = {
        dots.get_label(): np.asarray(dots.get_offsets()).tolist()
        for dots in two.collections
        if len(np.asarray(dots.get_offsets()))
    }
    assert shown.pop("real") == [[2, 2]]
    assert shown.pop("puppet") == [[3, 3]]
    assert list(shown.values()) == [[[0, 0], [1, 1]]]
    assert one.get_xlim() == two.get_xlim()


def test_tsne_keeps_clusters_together_and_is_the_same_again() -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(10 * place, 1, (20, 64)) for place in range(3)]).astype(
        np.float32
    )
    places = tsne(vectors, 0)
    np.testing.assert_array_equal(tsne(vectors, 0), places)
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert (distance.argmin(1) // 20 == np.arange(60) // 20).all()


# ---- the command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds."""
    place = tmp_path_factory.mktemp("work")
    data = [
        "data=folder",
        f"data.root={grow_tree(place / 'data', domains=('real', 'swap', 'puppet'))}",
        "backbone=demo_vit",
        "trainer=smoke",
    ]
    for seed in (0, 1):
        assert (
            main(
                [
                    "train",
                    "method=probe",
                    *data,
                    f"seed={seed}",
                    f"hydra.run.dir={place / str(seed)}",
                ]
            )
            == 0
        )
    return place


@pytest.fixture
def run(runs: Path) -> Path:
    return runs / "0"


def test_the_command_draws_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["explain", f"run={run}", "images=1", "frames=24"]) == 0
    assert f"The explanations lie in {run / 'explanations'}" in capsys.readouterr().out
    assert {path.name for path in (run / "explanations").iterdir()} == {
        "heatmaps.png",
        "features.png",
        "features.parquet",
    }
    for name in ("heatmaps.png", "features.png"):
        with Image.open(run / "explanations" / name) as image:
            assert image.format == "PNG"
    points = pl.read_parquet(run / "explanations" / "features.parquet")
    assert points.columns == ["path", "dataset", "domain", "label", "logit", "x", "y"]
    assert points.height <= 24
    scored = pl.concat([pl.read_parquet(path) for path in (run / "predictions").glob("*.parquet")])
    both = points.join(scored, on=["dataset", "path"], how="left")
    np.testing.assert_allclose(both["logit"], both["logit_right"], atol=1e-4)
    assert set(points["domain"]) == set(scored["domain"])
    assert all(path.read_bytes() == held for path, held in before.items())


def test_pictures_of_other_data_lie_beside_those_of_the_runs_own(run: Path, tmp_path: Path) -> None:
    data = ["data=folder", f"data.root={grow_tree(tmp_path / 'other', domains=('real', 'morph'))}"]
    held = {path: path.read_bytes() for path in (run / "explanations").glob("*.*")}
    assert main(["explain", f"run={run}", "images=1", "frames=24", "domains=[morph]", *data]) == 0
    (place,) = (path for path in (run / "explanations").iterdir() if path.is_dir())
    assert {path.name for path in place.iterdir()} == {
        "heatmaps.png",
        "features.png",
        "features.parquet",
    }
    (name,) = pl.read_parquet(place / "features.parquet")["dataset"].unique()
    assert place.name == name
    assert {path: path.read_bytes() for path in (run / "explanations").glob("*.*")} == held


def test_a_picture_has_no_more_rows_than_fit(caplog: pytest.LogCaptureFixture) -> None:
    tests = {
        "one": table({"real": (1, 1)} | {f"swap{number:02}": (1, 1) for number in range(30)}),
        "two": table({"real": (1, 1)}),
    }
    names = [f"swap{number:02}" for number in range(30)]
    assert {
        dataset: set(manifest.table["domain"])
        for dataset, manifest in limit_domains(tests, None).items()
    } == {
        "one": {"real", *names[:23]},
        "two": {"real"},
    }
    assert [record.message for record in caplog.records] == [
        "The heat maps of one show 24 domains and leave out 7; domains=[NAME,...] chooses them."
    ]
    assert {
        dataset: set(manifest.table["domain"])
        for dataset, manifest in limit_domains(tests, names[-2:]).items()
    } == {"one": set(names[-2:])}


def test_a_merged_run_and_gradcam(runs: Path, tmp_path: Path) -> None:
    merged, out = tmp_path / "merged", tmp_path / "out"
    assert (
        main(
            [
                "merge",
                "merger=average",
                f"experts=[{runs / '0'},{runs / '1'}]",
                f"out={merged}",
                "test=false",
            ]
        )
        == 0
    )
    data = ["data=folder", f"data.root={grow_tree(tmp_path / 'other', domains=('real', 'morph'))}"]
    assert (
        main(
            [
                "explain",
                f"run={merged}",
                "images=1",
                "how=gradcam",
                "layer=blocks.3",
                *data,
                f"out={out}",
            ]
        )
        == 0
    )
    assert (out / "heatmaps.png").exists()
    assert not (merged / "explanations").exists()
    assert set(pl.read_parquet(out / "features.parquet")["domain"]) == {"real", "morph"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["how=saliency"], "how=saliency is unknown; choose one of rollout, gradcam."),
        (
            ["domains=[real,swop]"],
            "domains=swop is in no test dataset; choose of puppet, real, swap.",
        ),
        (["images=0"], "images=0 is out of range; give at least 1."),
        (["frames=2"], "frames=2 leaves too few frames"),
        (["how=rollout", "layer=norm"], "layer=norm has no meaning for how=rollout"),
        (["layer=nothing"], "layer=nothing is none of VisionTransformer's"),
        (
            ["backbone.size=96"],
            "backbone.size=96 would change the run itself, which explain takes as it was trained",
        ),
        (["data.root=x"], "unless data=NAME is given, too"),
    ],
)
def test_what_the_command_refuses(
    run: Path, tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", f"run={run}", f"out={tmp_path / 'out'}", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_merge_of_files_needs_data(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(
        (run / "config.yaml").read_text().partition("data:\n")[0] + "data: null\ntrainer: null\n"
    )
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    assert main(["explain", f"run={tmp_path}"]) == 2
    assert "give data=NAME" in capsys.readouterr().err


def test_a_map_coarser_than_seven_cells_is_said_to_be() -> None:
    assert coarse_sentence((7, 7)) == coarse_sentence((14, 16)) == ""
    assert coarse_sentence((2, 7)).startswith("The maps have 2 x 7 cells, fewer than 7 x 7")
    assert heatmap_title("Grad-CAM", coarse_sentence((2, 2))).count("\n") == 3
    assert heatmap_title("Grad-CAM", "").count("\n") == 2
