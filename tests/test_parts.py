"""The parts of a network's tensors, from a skeleton without memory."""

import functools
from pathlib import Path

import pytest
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from fmsd.merge.task_vectors import TensorPart
from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.peft import adapter
from fmsd.peft.parts import network_parts
from tests.folding import NETWORKS, Attention
from tests.test_families import FAMILIES, Family

AFFINE = TensorPart("other", affine=True)

PARTS: dict[str, dict[str, TensorPart]] = {
    "vit": {
        "cls_token": TensorPart("other"),
        "pos_embed": TensorPart("other"),
        "patch_embed.proj.weight": TensorPart("matrix"),
        "patch_embed.proj.bias": AFFINE,
        "blocks.0.norm1.weight": AFFINE,
        "blocks.0.norm1.bias": AFFINE,
        "blocks.0.attn.qkv.weight": TensorPart("matrix", 3),
        "blocks.0.attn.qkv.bias": AFFINE,
        "blocks.0.attn.proj.weight": TensorPart("matrix"),
        "blocks.0.mlp.fc1.weight": TensorPart("matrix"),
        "head.weight": TensorPart("head"),
        "head.bias": TensorPart("head"),
    },
    "siglip": {
        "attn_pool.kv.weight": TensorPart("matrix", 2),
        "attn_pool.q.weight": TensorPart("matrix"),
        "attn_pool.latent": TensorPart("other"),
        "blocks.0.attn.qkv.weight": TensorPart("matrix", 3),
    },
    "eva": {
        "blocks.0.attn.q_proj.weight": TensorPart("matrix"),
        "blocks.0.mlp.fc1_g.weight": TensorPart("matrix"),
        "blocks.0.attn.q_proj.bias": AFFINE,
    },
    "swin": {
        "layers.0.blocks.0.attn.relative_position_bias_table": TensorPart("other"),
        "layers.0.blocks.0.attn.qkv.weight": TensorPart("matrix", 3),
        "layers.1.downsample.reduction.weight": TensorPart("matrix"),
        "layers.1.downsample.norm.weight": AFFINE,
        "head.fc.weight": TensorPart("head"),
        "head.fc.bias": TensorPart("head"),
    },
    "efficientnet": {
        "conv_stem.weight": TensorPart("matrix"),
        "bn1.weight": AFFINE,
        "bn1.bias": AFFINE,
        "bn1.running_mean": TensorPart("statistic"),
        "bn1.running_var": TensorPart("statistic"),
        "bn1.num_batches_tracked": TensorPart("counter"),
        "classifier.weight": TensorPart("head"),
    },
    "resnet": {
        "layer2.0.conv2.weight": TensorPart("matrix"),
        "layer2.0.downsample.0.weight": TensorPart("matrix"),
        "fc.bias": TensorPart("head"),
    },
    "convnext": {
        "stem.0.weight": TensorPart("matrix"),
        "stages.0.blocks.0.conv_dw.weight": TensorPart("other"),
        "stages.0.blocks.0.gamma": TensorPart("other"),
        "stages.0.blocks.0.mlp.fc1.weight": TensorPart("matrix"),
        "stages.1.downsample.1.weight": TensorPart("matrix"),
        "head.norm.weight": AFFINE,
        "head.fc.weight": TensorPart("head"),
    },
}


@pytest.mark.parametrize("network", PARTS)
def test_tensors_are_what_their_modules_make_them(network: str) -> None:
    found = network_parts(meta_detector(NETWORKS[network]))
    assert {name: found[name] for name in PARTS[network]} == PARTS[network]
    head = adapter.head_name(NETWORKS[network]())
    assert {name for name, part in found.items() if part.kind == "head"} == {
        f"{head}.weight",
        f"{head}.bias",
    }


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_skeleton_is_the_detector_without_memory_and_every_tensor_has_a_part(
    family: Family,
) -> None:
    make = functools.partial(detector, family.name, family.size, **family.arguments)
    real, empty = make(), meta_detector(make)
    own, found = real.backbone.state_dict(), empty.backbone.state_dict()
    assert list(found) == list(own)
    assert {key: (value.shape, value.dtype) for key, value in found.items()} == {
        key: (value.shape, value.dtype) for key, value in own.items()
    }
    assert all(
        tensor.is_meta for tensor in (*empty.backbone.parameters(), *empty.backbone.buffers())
    )
    assert [(name, type(module)) for name, module in empty.named_modules()] == [
        (name, type(module)) for name, module in real.named_modules()
    ]
    config = resolve_model_data_config(real.backbone)
    assert empty.mean.flatten().tolist() == torch.tensor(config["mean"]).tolist()
    assert empty.std.flatten().tolist() == torch.tensor(config["std"]).tolist()

    kinds = network_parts(empty)
    assert kinds == network_parts(real)
    assert list(kinds) == list(own)
    assert {part.kind for part in kinds.values()} <= {
        "matrix",
        "other",
        "statistic",
        "counter",
        "head",
    }
    learning = dict(real.backbone.named_parameters())
    for name, part in kinds.items():
        assert (part.kind in ("statistic", "counter")) == (name not in learning), name
        assert (part.kind == "counter") == (not own[name].is_floating_point()), name
        assert own[name].dim() > 1 or part.kind != "matrix", name
        if part.kind == "matrix":
            assert part.matrices(own[name]).shape == (
                part.slices,
                len(own[name]) // part.slices,
                own[name][0].numel(),
            )
    grouped = {
        name
        for name, module in real.backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    assert all(kinds[f"{name}.weight"] == TensorPart("other") for name in grouped)


def test_torchs_own_attention_stacks_three_matrices_and_buffers_are_known_by_their_dtype() -> None:
    found = network_parts(Detector(Attention(), (0.5,) * 3, (0.5,) * 3))
    assert found == {
        "index": TensorPart("counter"),
        "mask": TensorPart("counter"),
        "scale": TensorPart("statistic"),
        "attention.in_proj_weight": TensorPart("matrix", 3),
        "attention.in_proj_bias": AFFINE,
        "attention.out_proj.weight": TensorPart("matrix"),
        "attention.out_proj.bias": AFFINE,
        "embedding.weight": TensorPart("other"),
        "turned.weight": TensorPart("other"),
        "turned.bias": AFFINE,
        "volume.weight": TensorPart("matrix"),
        "volume.bias": AFFINE,
        "fc.weight": TensorPart("head"),
        "fc.bias": TensorPart("head"),
    }


def test_a_skeleton_reads_no_weights_and_does_not_disturb_the_random_state(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    empty = meta_detector(functools.partial(NETWORKS["vit"], weights=tmp_path / "none.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    assert list(empty.backbone.state_dict()) == list(NETWORKS["vit"]().backbone.state_dict())


def test_a_large_skeleton_costs_nothing() -> None:
    """64 GB of weights in single precision."""
    empty = meta_detector(
        functools.partial(
            detector, "vit_giant_patch14_dinov2", 224, embed_dim=12288, num_heads=96, depth=8
        )
    )
    assert sum(parameter.numel() for parameter in empty.parameters()) > 1e10
    assert (
        sum(
            tensor.nbytes
            for tensor in (*empty.parameters(), *empty.buffers())
            if not tensor.is_meta
        )
        < 100
    )
