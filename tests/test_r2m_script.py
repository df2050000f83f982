"""R2M as its authors' script computes it: the formula written out in double precision, and its
laws.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from fmsd.errors import InputError
from fmsd.merge.r2m import R2M
from fmsd.merge.r2m_script import R2MScript
from fmsd.merge.task_vectors import Specialists
from fmsd.models.detector import detector, meta_detector
from fmsd.peft.parts import network_parts
from tests.test_mergers import LEARNED, PARTS, close, merged, network


def naive(merger: R2MScript, specialists: Specialists) -> dict[str, Tensor]:
    """The formula with whole task vectors."""
    base = {name: specialists.base[name].double() for name in LEARNED}
    tasks = [
        {name: expert[name].double() - base[name] for name in LEARNED}
        for expert in specialists.experts
    ]
    count = len(tasks)
    gram = torch.zeros(count, count, dtype=torch.float64)
    for name in LEARNED:
        if not PARTS[name].affine:
            rows = torch.stack([task[name].flatten() for task in tasks])
            gram += math.sqrt(rows.shape[1]) / rows.norm() * rows @ rows.T
    u = torch.linalg.svd(gram).U[:, : merger.directions]
    mean = {name: sum(task[name] for task in tasks) / count for name in LEARNED}
    weights = (u @ u.T).mean(0)
    core = {
        name: mean[name]
        if PARTS[name].affine
        else sum(weight * task[name] for weight, task in zip(weights, tasks, strict=True))
        for name in LEARNED
    }
    residuals = [
        torch.cat([(task[name] - core[name]).flatten() for name in LEARNED]) for task in tasks
    ]
    goal = sum(residual.norm() for residual in residuals) / count
    step = merger.alpha * torch.cat([core[name].flatten() for name in LEARNED]).norm()
    added = step * sum(residual * goal / residual.norm() for residual in residuals) / count
    split = added.split([base[name].numel() for name in LEARNED])
    return {
        name: base[name] + core[name] + part.view_as(base[name])
        for name, part in zip(LEARNED, split, strict=True)
    }


@pytest.mark.parametrize("merger", [R2MScript(), R2MScript(2, 0.3), R2MScript(3)], ids=str)
def test_it_is_its_formula(merger: R2MScript) -> None:
    specialists = network()
    assert {PARTS[name].affine for name in LEARNED} == {False, True}
    close(
        merged(merger, specialists),
        {name: tensor.float() for name, tensor in naive(merger, specialists).items()},
        1e-5,
    )


@pytest.mark.parametrize("directions", [1, 2])
def test_identical_specialists_return_the_specialist(directions: int) -> None:
    specialists = network(same=True)
    close(merged(R2MScript(directions), specialists), specialists.experts[0])


def test_without_residuals_it_is_the_core_and_the_mean_on_norms_and_biases() -> None:
    specialists = network()
    found = merged(R2MScript(alpha=0.0), specialists)
    weights = R2MScript().core(specialists).weights.float()
    for name in LEARNED:
        tasks = torch.stack(
            [expert[name] - specialists.base[name] for expert in specialists.experts]
        )
        core = tasks.mean(0) if PARTS[name].affine else torch.tensordot(weights, tasks, 1)
        torch.testing.assert_close(found[name], specialists.base[name] + core)
        # the script's factor of gamma would make it thousands of times as long
        assert float(core.norm()) < 2 * float(tasks.mean(0).norm())


def test_with_all_directions_the_core_is_the_average() -> None:
    specialists = network()
    average = {
        name: torch.stack([expert[name] for expert in specialists.experts]).mean(0)
        for name in LEARNED
    }
    close(merged(R2MScript(3, alpha=0.0), specialists), average)


def test_its_core_is_that_of_r2m_with_every_layer_weighted_by_gamma() -> None:
    specialists = network()
    plain = Specialists(
        specialists.base,
        specialists.experts,
        {name: part._replace(affine=False) for name, part in PARTS.items()},
    )
    sizes = torch.tensor(
        [math.prod(specialists.base[name].shape) for name in LEARNED], dtype=torch.float64
    )
    gamma = sizes.sqrt() / plain.gram.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    weighted = Specialists(
        plain.base, plain.experts, plain.parts, known_gram=plain.gram * gamma[:, None, None]
    )
    torch.testing.assert_close(R2MScript().core(plain).weights, R2M().core(weighted).weights)
    assert not torch.allclose(R2MScript().core(plain).weights, R2M().core(plain).weights, atol=1e-3)


def test_what_it_says_about_each_tensor_adds_up() -> None:
    specialists = network()
    said = {name: about for name, _, about in R2MScript()(specialists)}
    norms = torch.tensor([said[name]["residuals"] for name in LEARNED]).square().sum(0).sqrt()
    assert torch.allclose(norms, norms.mean().expand(3), rtol=1e-5)
    core = merged(R2MScript(alpha=0.0), specialists)
    for name in LEARNED:
        assert said[name]["core"] == pytest.approx(
            float((core[name] - specialists.base[name]).norm()), rel=1e-4
        )


def test_more_directions_than_specialists_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"merger\.directions=4 does not fit 3 experts; give a whole number from 1 to 3",
    ):
        list(R2MScript(directions=4)(network()))


def test_norms_and_biases_are_known_by_the_type_of_their_module() -> None:
    found = network_parts(
        meta_detector(partial(detector, "vit_tiny_patch16_224", size=64, img_size=64))
    )
    affine = {name for name, part in found.items() if part.affine}
    assert {
        "norm.weight",
        "norm.bias",
        "blocks.0.norm1.weight",
        "blocks.0.attn.qkv.bias",
        "patch_embed.proj.bias",
    } <= affine
    assert not affine & {
        "cls_token",
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.mlp.fc1.weight",
    }
    beit = network_parts(
        meta_detector(partial(detector, "beit_base_patch16_224", size=64, img_size=64))
    )
    assert beit["blocks.0.attn.q_bias"].affine
    assert not beit["blocks.0.attn.relative_position_bias_table"].affine
    assert not beit["blocks.0.gamma_1"].affine
