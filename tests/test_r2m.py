"""R2M: the laws it must obey, and the formula written out in double precision over whole models."""

import itertools
import math
from pathlib import Path

import jaxtyping
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fmsd.errors import InputError
from fmsd.linalg import SVD
from fmsd.merge.core import Normalise
from fmsd.merge.r2m import R2M
from fmsd.merge.task_vectors import Specialists, StateDict, TensorPart, merge_tensors
from fmsd.state import StateFile
from tests.test_mergers import LEARNED, MATRICES, PARTS, close, merged, network, plus, state

VARIANTS = [
    R2M(normalise=normalise, directions=directions, ratio=ratio)
    for normalise in ("none", "task")
    for directions in (1, 2)
    for ratio in (0.1, 0.4)
]


def naive(merger: R2M, specialists: Specialists) -> dict[str, Tensor]:
    """The formula, with the stacked task matrix of the whole model and complete decompositions."""
    base = {name: specialists.base[name].double() for name in LEARNED}
    tasks = [
        {name: expert[name].double() - base[name] for name in LEARNED}
        for expert in specialists.experts
    ]
    count = len(tasks)
    rows = [torch.stack([task[name].flatten() for task in tasks]) for name in LEARNED]
    stacked = torch.cat(rows, 1)
    if merger.normalise == "task":  # projected onto directions of the parameters' space
        scaled = stacked / stacked.norm(dim=1, keepdim=True)
        v = torch.linalg.svd(scaled, full_matrices=False).Vh[: merger.directions]
        parts = [(row @ v.T @ v).split([base[name].numel() for name in LEARNED]) for row in stacked]
        projected = [
            {name: part.view_as(base[name]) for name, part in zip(LEARNED, own, strict=True)}
            for own in parts
        ]
    else:
        u = torch.linalg.svd(stacked, full_matrices=False).U[:, : merger.directions]
        projection = u @ u.T
        projected = [
            {name: sum(projection[i, j] * tasks[j][name] for j in range(count)) for name in LEARNED}
            for i in range(count)
        ]
    core = {name: sum(own[name] for own in projected) / count for name in LEARNED}
    residuals = [
        {name: tasks[i][name] - projected[i][name] for name in LEARNED} for i in range(count)
    ]
    for residual, name in itertools.product(residuals, MATRICES):
        parts = []
        for matrix in residual[name].flatten(1).chunk(PARTS[name].slices):
            left, s, right = torch.linalg.svd(matrix, full_matrices=False)
            rank = max(1, math.floor(merger.ratio * min(matrix.shape)))
            parts.append((left[:, :rank] * s[:rank]) @ right[:rank])
        residual[name] = torch.cat(parts).view_as(residual[name])
    norms = [
        math.sqrt(sum(float(residual[name].square().sum()) for name in LEARNED))
        for residual in residuals
    ]
    for residual, norm in zip(residuals, norms, strict=True):
        for name in LEARNED:
            residual[name] = residual[name] * (sum(norms) / count / norm)
    mean = {name: sum(residual[name] for residual in residuals) / count for name in LEARNED}
    return {name: base[name] + core[name] + merger.alpha * mean[name] for name in LEARNED}


@pytest.mark.parametrize("merger", VARIANTS, ids=str)
def test_it_is_its_formula(merger: R2M) -> None:
    specialists = network()
    close(
        merged(merger, specialists),
        {name: tensor.float() for name, tensor in naive(merger, specialists).items()},
        1e-5,
    )


@pytest.mark.parametrize("merger", VARIANTS, ids=str)
def test_identical_specialists_return_the_specialist(merger: R2M) -> None:
    specialists = network(same=True)
    close(merged(merger, specialists), specialists.experts[0])


@pytest.mark.parametrize("normalise", ["none", "task"])
def test_with_as_many_directions_as_specialists_it_is_the_average(normalise: Normalise) -> None:
    specialists = network(4)
    average = {
        name: torch.stack([expert[name] for expert in specialists.experts]).mean(0)
        for name in LEARNED
    }
    close(merged(R2M(directions=4, normalise=normalise), specialists), average)


@pytest.mark.parametrize("normalise", ["none", "task"])
def test_without_residuals_it_is_the_core(normalise: Normalise) -> None:
    specialists = network()
    found = merged(R2M(alpha=0.0, normalise=normalise), specialists)
    for ratio in (0.05, 1.0):
        close(merged(R2M(alpha=0.0, normalise=normalise, ratio=ratio), specialists), found, 0)
    weights = R2M(normalise=normalise).core(specialists).weights.float()
    for name in LEARNED:
        tasks = torch.stack(
            [expert[name] - specialists.base[name] for expert in specialists.experts]
        )
        torch.testing.assert_close(
            found[name], specialists.base[name] + torch.tensordot(weights, tasks, 1)
        )
    share = torch.cat([(found[name] - specialists.base[name]).flatten() for name in LEARNED])
    tasks = torch.stack(
        [
            torch.cat([(expert[name] - specialists.base[name]).flatten() for name in LEARNED])
            for expert in specialists.experts
        ]
    )
    inside = tasks.T @ torch.linalg.lstsq(tasks.T, share[:, None]).solution
    assert torch.allclose(inside[:, 0], share, atol=1e-6)


@pytest.mark.parametrize("merger", VARIANTS, ids=str)
def test_one_specialist_that_learned_nothing_is_no_trouble(merger: R2M) -> None:
    specialists = network()
    found = merged(
        merger, Specialists(specialists.base, [*specialists.experts[:2], specialists.base], PARTS)
    )
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert not torch.equal(found["fc.weight"], specialists.base["fc.weight"])


def test_with_normalise_task_the_length_of_a_specialist_does_not_decide_the_core() -> None:
    specialists = network()
    longer = {
        name: specialists.base[name] + 10 * (specialists.experts[0][name] - specialists.base[name])
        for name in LEARNED
    }
    stretched = Specialists(
        specialists.base, [{**specialists.experts[0], **longer}, *specialists.experts[1:]], PARTS
    )
    for merger, largest in ((R2M(normalise="task"), 0.5), (R2M(), 1.0)):
        shares = merger.core(stretched).shares
        assert shares is not None
        assert largest - 0.2 < max(shares) < largest
    torch.testing.assert_close(
        R2M(normalise="task").core(stretched).shares, R2M(normalise="task").core(specialists).shares
    )


@pytest.mark.parametrize("merger", VARIANTS, ids=str)
def test_the_order_of_the_specialists_does_not_matter(merger: R2M) -> None:
    specialists = network(3)
    turned = Specialists(
        specialists.base, [specialists.experts[place] for place in (2, 0, 1)], PARTS
    )
    close(merged(merger, turned), merged(merger, specialists), 1e-5)


def test_a_core_of_one_direction_is_recovered() -> None:
    generator = torch.Generator().manual_seed(1)
    base, shared = state(generator), state(generator, 0.1)
    weights = (0.5, 1.0, 2.0)
    experts = [
        plus(base, {name: weight * value for name, value in shared.items()}) for weight in weights
    ]
    mean = sum(weights) / 3
    expected = plus(base, {name: mean * value for name, value in shared.items()})
    close(merged(R2M(), Specialists(base, experts, PARTS)), expected)
    noisy = [plus(expert, state(generator, 1e-4)) for expert in experts]
    close(merged(R2M(alpha=0.0), Specialists(base, noisy, PARTS)), expected, 2e-3)


def test_rounding_is_not_scaled_up_to_the_norm_of_a_residual() -> None:
    generator = torch.Generator().manual_seed(2)
    base = {name: torch.zeros_like(value) for name, value in state(generator).items()}
    long, short = state(generator), state(generator, 0.01)
    own, other = ({name: task[name].double() for name in LEARNED} for task in (long, short))
    overlap = sum(float((own[name] * other[name]).sum()) for name in LEARNED) / sum(
        float(own[name].square().sum()) for name in LEARNED
    )
    short = {
        name: (other[name] - overlap * own[name]).float() if name in LEARNED else short[name]
        for name in short
    }
    specialists = Specialists(base, [plus(base, task) for task in (long, long, short)], PARTS)
    # Along `long` two specialists agree and nothing is left of them; all of `short` is residual,
    # and a third of its norm the mean one.
    expected = {name: long[name] * 2 / 3 + 0.5 * short[name] / 9 for name in LEARNED}
    close(merged(R2M(alpha=0.5, ratio=1.0), specialists), expected, 1e-5)


def test_specialists_that_learned_nothing_return_the_base() -> None:
    specialists = network()
    unmoved = Specialists(specialists.base, [specialists.base] * 3, PARTS)
    for merger in VARIANTS:
        close(merged(merger, unmoved), specialists.base, 0)


def wide(kind: torch.dtype = torch.float32) -> tuple[dict[str, TensorPart], list[StateDict]]:
    """A base and three experts with matrices above the size up to which they are decomposed as a
    whole.
    """
    parts = {
        "a.weight": TensorPart("matrix"),
        "a.bias": TensorPart("other"),
        "head.weight": TensorPart("head"),
    }
    shapes = {"a.weight": (300, 260), "a.bias": (300,), "head.weight": (1, 300)}
    generator = torch.Generator().manual_seed(3)
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    states = [base]
    for _ in range(3):
        task = {
            name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()
        }
        left, right = (
            torch.randn(300, 3, generator=generator),
            torch.randn(3, 260, generator=generator),
        )
        task["a.weight"] = 0.1 * left @ right
        states.append({name: base[name] + task[name] for name in shapes})
    return parts, [{name: value.to(kind) for name, value in one.items()} for one in states]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_from_files_it_is_the_same_as_in_memory_and_computes_in_single_precision(
    kind: torch.dtype, tmp_path: Path
) -> None:
    parts, (base, *experts) = wide(kind)
    for place, one in enumerate([base, *experts]):
        save_file(dict(one), tmp_path / f"{place}.safetensors")
    files = [StateFile(tmp_path / f"{place}.safetensors") for place in range(4)]
    streamed = {
        name: tensor
        for name, tensor, _ in merge_tensors(Specialists(files[0], files[1:], parts), R2M())
    }
    single = [{name: value.float() for name, value in one.items()} for one in (base, *experts)]
    held = {
        name: tensor
        for name, tensor, _ in merge_tensors(Specialists(single[0], single[1:], parts), R2M())
    }
    assert streamed.keys() == held.keys() == parts.keys()
    for name, tensor in streamed.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, held[name])


def test_the_number_of_threads_does_not_matter_and_is_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(4)
    parts = {f"{place}.weight": TensorPart("matrix") for place in range(24)}
    states = [
        {
            name: torch.randn(8 + place, 40 - place, generator=generator)
            for place, name in enumerate(parts)
        }
        for _ in range(4)
    ]
    specialists = Specialists(states[0], states[1:], parts)
    alone = merged(R2M(), specialists)
    torch.set_num_threads(3)
    try:
        several = merged(R2M(), Specialists(states[0], states[1:], parts))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    close(several, alone, 0, list(parts))


@pytest.mark.parametrize("svd", ["exact", "krylov"])
def test_large_matrices_of_low_rank_are_merged_as_by_complete_decompositions(svd: SVD) -> None:
    parts, (base, *experts) = wide()
    merger = R2M(ratio=0.1, svd=svd)  # rank 26 holds all nine directions of a residual
    whole = merged(R2M(ratio=1.0), Specialists(base, experts, parts))
    close(merged(merger, Specialists(base, experts, parts)), whole, 1e-5, ["a.weight", "a.bias"])
    about = next(
        about for name, _, about in merger(Specialists(base, experts, parts)) if name == "a.weight"
    )
    assert about["rank"] == 26
    assert "rejected" not in about
    assert about["energy"] == pytest.approx([1.0] * 3, abs=1e-5)
    assert about["of_best"] == pytest.approx([1.0] * 3, abs=1e-5)


def test_what_it_says_about_each_tensor_adds_up() -> None:
    specialists = network()
    merger = R2M(ratio=0.4)
    said = {name: about for name, _, about in merger(specialists)}
    assert [name for name in said if "rank" in said[name]] == MATRICES
    norms = torch.tensor([said[name]["residuals"] for name in LEARNED]).square().sum(0).sqrt()
    assert torch.allclose(norms, norms.mean().expand(3), rtol=1e-5), (
        "norm matching makes the residuals equally long"
    )
    core = merged(R2M(alpha=0.0), specialists)
    for name in LEARNED:
        assert said[name]["core"] == pytest.approx(
            float((core[name] - specialists.base[name]).norm()), rel=1e-4
        )


def test_the_gram_matrix_is_exact_and_grows_by_a_specialist() -> None:
    specialists = network(4)
    for name, gram in zip(LEARNED, specialists.gram, strict=True):
        rows = torch.stack(
            [
                (expert[name] - specialists.base[name]).double().flatten()
                for expert in specialists.experts
            ]
        )
        assert torch.allclose(gram, rows @ rows.T, rtol=1e-12, atol=0)
    first = Specialists(specialists.base, specialists.experts[:3], PARTS)
    more = Specialists(specialists.base, specialists.experts, PARTS, known_gram=first.gram)
    assert torch.equal(more.gram[:, :3, :3], first.gram)
    assert torch.allclose(more.gram, specialists.gram, rtol=1e-13)
    close(merged(R2M(), more), merged(R2M(), specialists), 1e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_weights_are_named(value: float) -> None:
    for tensor in ("fc.weight", "gain", "head.weight", "bn.mean"):
        specialists = network()
        broken = {name: one.clone() for name, one in specialists.experts[1].items()}
        broken[tensor].view(-1)[-1] = value
        names = Specialists(
            specialists.base, [specialists.experts[0], broken], PARTS, labels=["first", "second"]
        )
        with pytest.raises(InputError, match=rf"second holds NaN or infinite values in '{tensor}'"):
            list(merge_tensors(names, R2M()))


@pytest.mark.parametrize(
    "settings",
    [
        {"alpha": -1},
        {"alpha": math.nan},
        {"ratio": 1.5},
        {"ratio": "a"},
        {"directions": 0},
        {"normalise": "layer"},
        {"svd": "randomised"},
        {"least_energy": 1.1},
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tests' type checker would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=rf"merger\.{next(iter(settings))}="):
        R2M(**settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("directions", [4, 1.5])
def test_more_directions_than_specialists_are_refused(
    directions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(
        InputError,
        match=(
            rf"merger\.directions={directions} does not fit 3 experts; give a whole number from "
            r"1 to 3"
        ),
    ):
        list(R2M(directions=directions)(network()))  # pyright: ignore[reportArgumentType]
