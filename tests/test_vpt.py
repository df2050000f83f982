"""VPT-deep: the released scheme of prompts, their number, positions and initial values."""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block

from fmsd.models.detector import Detector, detector, meta_detector
from fmsd.optim.groups import decay_groups, trainable_parameters
from fmsd.peft import adapter
from fmsd.peft.vpt import PromptedBlock, vpt
from tests.conftest import tiny_vit
from tests.test_families import BY_NAME, build, refusal, stir


def prompted(tokens: int = 3, dropout: float = 0.0, **changes: Any) -> Detector:
    model = tiny_vit(**changes)
    vpt(model, tokens=tokens, dropout=dropout)
    stir(model)
    return model.eval()


@pytest.mark.parametrize("tokens", [1, 50])
def test_a_clip_vit_l14_has_24576_parameters_a_token(tokens: int) -> None:
    model = meta_detector(functools.partial(detector, "vit_large_patch14_clip_224", 224))
    vpt(model, tokens=tokens)
    count = sum(parameter.numel() for parameter in trainable_parameters(model))
    assert count == 24_576 * tokens + 1025


@torch.no_grad()
def test_the_logits_are_those_of_prompts_that_each_block_replaces() -> None:
    """The scheme of the released code, in which prompts stay until the next block's take their
    place, and until the head after the last.
    """
    model: Any = prompted(depth=3)
    image, backbone = torch.rand(2, 3, 32, 32), model.backbone
    x = backbone._pos_embed(backbone.patch_embed((image - model.mean) / model.std))
    for number, own in enumerate(backbone.blocks):
        patches = x[:, 1:] if number == 0 else x[:, 1 + 3 :]
        x = own.block(torch.cat([x[:, :1], own.prompts.expand(2, -1, -1), patches], 1))
    expected = backbone.head(backbone.norm(x)[:, 0]).squeeze(-1)
    torch.testing.assert_close(model(image), expected)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_clip_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3",
        "eva02_tiny_patch14_224",
        "eva02_base_patch14_224",
        "vit_pe_core_tiny_patch16_384",
    ],
)
@torch.no_grad()
def test_prompts_that_no_token_attends_to_change_nothing(name: str) -> None:
    """So all other tokens keep their positions, also rotary ones."""
    plain: Any = build(BY_NAME[name]).backbone
    own: Any = build(BY_NAME[name])
    own.backbone.load_state_dict(plain.state_dict())
    vpt(own, tokens=3)
    prefix = plain.num_prefix_tokens
    calls: list[tuple[Any, Any]] = []
    hook = plain.blocks[0].register_forward_pre_hook(
        lambda _, inputs, named: calls.append((inputs, named)), with_kwargs=True
    )
    plain.eval()(torch.rand(2, 3, 32, 32))
    hook.remove()
    ((x,), named) = calls[0]
    visible = torch.ones(x.shape[1] + 3, dtype=torch.bool)
    visible[prefix : prefix + 3] = False
    mask = visible.expand(len(visible), -1)
    block = own.backbone.eval().blocks[0]
    assert isinstance(block, PromptedBlock)
    expected = plain.blocks[0](x, **named)
    torch.testing.assert_close(block(x, **(named | {"attn_mask": mask})), expected)
    assert not torch.allclose(block(x, **named), expected)


def test_prompts_start_within_the_bound_of_the_released_code() -> None:
    model: Any = tiny_vit()
    vpt(model, tokens=50)
    bound = math.sqrt(6 / (3 * 8 * 8 + 24))
    own = torch.stack([block.prompts.detach() for block in model.backbone.blocks])
    assert own.abs().max() <= bound
    assert own.abs().max() > 0.95 * bound
    assert own.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not torch.equal(own[0], own[1])


def test_dropout_acts_on_prompts_in_training_alone() -> None:
    model, image = prompted(dropout=0.5), torch.rand(2, 3, 32, 32)
    assert torch.equal(model(image), model(image))
    model.train()
    assert not torch.equal(model(image), model(image))


def test_prompts_do_not_decay() -> None:
    model: Any = prompted()
    groups: Any = decay_groups(model, 0.1)
    decayed, undecayed = (group["params"] for group in groups)
    assert set(decayed) == {model.head().weight}
    assert {block.prompts for block in model.backbone.blocks} < set(undecayed)


@pytest.mark.parametrize(
    ("tokens", "dropout", "words"),
    [
        (0, 0.0, "method.tokens=0 is no number of tokens"),
        (1, -0.1, "method.dropout=-0.1 is no probability below 1"),
    ],
)
def test_arguments_out_of_range_are_refused(tokens: int, dropout: float, words: str) -> None:
    assert words in refusal(lambda: prompted(tokens, dropout))


@pytest.mark.parametrize(
    "name", ["beit_base_patch16_224", "swin_tiny_patch4_window7_224", "hiera_tiny_224", "resnet50"]
)
def test_other_backbones_are_refused_and_unchanged(name: str) -> None:
    model = build(BY_NAME[name])
    before = [type(module) for module in model.modules()]
    sentence = refusal(lambda: vpt(model, tokens=2))
    assert f"{type(model.backbone).__name__} is no plain vision transformer" in sentence
    assert "method=lora" in sentence
    assert [type(module) for module in model.modules()] == before
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_transformer_of_patches_of_any_size_is_refused_and_unchanged() -> None:
    tiny: dict[str, Any] = {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8}
    model = detector("naflexvit_base_patch16_gap", 32, **tiny)
    assert "NaFlexVit is no plain vision transformer" in refusal(lambda: vpt(model, tokens=2))
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("prefix", [0, 5])
def test_a_file_with_prompts_at_another_place_is_refused(prefix: int, tmp_path: Path) -> None:
    torch.manual_seed(7)
    model: Any = tiny_vit()
    base = {"name": "vit", "hash": adapter.fingerprint(model)}
    vpt(model, tokens=2)
    model.backbone.blocks[1].prefix = prefix
    adapter.save(model, tmp_path, base, {})
    torch.manual_seed(7)
    sentence = refusal(lambda: adapter.load(tiny_vit(), tmp_path))
    assert f"'blocks.1' inserts its prompts after {prefix} tokens, and Vision" in sentence


def test_a_derived_block_is_refused() -> None:
    """Nothing is known of what it does with its tokens."""

    class Own(Block):
        pass

    model: Any = tiny_vit()
    model.backbone.blocks[1].__class__ = Own
    assert "no plain vision transformer" in refusal(lambda: vpt(model, tokens=2))
