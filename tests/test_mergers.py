"""Mergers: laws that hold for all of them, and each against its formula written out in double
precision.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from fmsd.errors import InputError
from fmsd.merge.average import Average
from fmsd.merge.cart import CART
from fmsd.merge.dare import DARE, tensor_generator
from fmsd.merge.iso import IsoC, polar_factor, singular_triplets
from fmsd.merge.r2m_script import R2MScript
from fmsd.merge.task_arithmetic import TaskArithmetic
from fmsd.merge.task_vectors import Merger, Specialists, StateDict, TensorPart
from fmsd.merge.ties import TIES, magnitude_threshold
from fmsd.merge.tsv import TSVM
from fmsd.state import StateFile
from tests.conftest import ROOT

MERGERS: dict[str, Merger] = {
    "average": Average(),
    "task_arithmetic": TaskArithmetic(0.4),
    "ties": TIES(0.3),
    "ties_tensor": TIES(0.3, 0.7, "tensor"),
    "dare": DARE(0.4, 0.5),
    "cart": CART(0.4, 1.5),
    "tsv": TSVM(0.9),
    "iso": IsoC(0.8),
    "r2m_script": R2MScript(),
}
every_merger = pytest.mark.parametrize("merger", MERGERS.values(), ids=MERGERS)

SHAPES: dict[str, tuple[TensorPart, tuple[int, ...]]] = {
    "embed": (TensorPart("other"), (1, 5, 6)),
    "qkv.weight": (TensorPart("matrix", 3), (18, 6)),
    "qkv.bias": (TensorPart("other", affine=True), (18,)),
    "bn.mean": (TensorPart("statistic"), (6,)),
    "bn.count": (TensorPart("counter"), ()),
    "conv.weight": (TensorPart("matrix"), (7, 3, 2, 2)),
    "gain": (TensorPart("other"), ()),
    "head.weight": (TensorPart("head"), (1, 6)),
    "fc.weight": (TensorPart("matrix"), (6, 9)),
}
PARTS = {name: part for name, (part, _) in SHAPES.items()}
LEARNED = ["embed", "qkv.weight", "qkv.bias", "conv.weight", "gain", "fc.weight"]
MATRICES = ["qkv.weight", "conv.weight", "fc.weight"]


def state(
    generator: torch.Generator, spread: float = 1.0, rank: int | None = None
) -> dict[str, Tensor]:
    """Random tensors; matrices of a rank, if told."""
    found = {}
    for name, (part, shape) in SHAPES.items():
        value = torch.randn(shape, generator=generator)
        if rank and part.kind == "matrix":
            for matrix in part.matrices(value):
                left = torch.randn(matrix.shape[0], rank, generator=generator)
                matrix.copy_(left @ torch.randn(rank, matrix.shape[1], generator=generator))
        found[name] = torch.tensor(7) if part.kind == "counter" else spread * value
    return found


def plus(base: StateDict, task: StateDict) -> dict[str, Tensor]:
    return {
        name: base[name] + task[name] if PARTS[name].kind != "counter" else base[name]
        for name in base
    }


def network(
    experts: int = 3,
    seed: int = 0,
    rank: int | None = None,
    same: bool = False,
    kind: torch.dtype = torch.float32,
) -> Specialists:
    """A base and experts near it; `same` makes them copies of one."""
    generator = torch.Generator().manual_seed(seed)
    base = state(generator)
    others = [plus(base, state(generator, 0.1, rank)) for _ in range(1 if same else experts)] * (
        experts if same else 1
    )
    return Specialists(cast(base, kind), [cast(other, kind) for other in others], PARTS)


def cast(values: StateDict, kind: torch.dtype) -> dict[str, Tensor]:
    return {
        name: value.to(kind) if value.is_floating_point() else value
        for name, value in values.items()
    }


def merged(merger: Merger, specialists: Specialists) -> dict[str, Tensor]:
    return {name: tensor for name, tensor, _ in merger(specialists)}


def close(
    found: StateDict, expected: StateDict, tolerance: float = 2e-6, names: Sequence[str] = LEARNED
) -> None:
    for name in names:
        torch.testing.assert_close(
            found[name].double(),
            expected[name].double(),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def equal(found: StateDict, expected: StateDict) -> None:
    assert list(found) == list(expected)
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def exact(specialists: Specialists, name: str) -> tuple[Tensor, Tensor]:
    """The base's tensor and its task vectors in double precision, as matrices [slices, ...] and
    [slices, experts, ...] if they are.
    """
    base = specialists.base[name]
    tasks = torch.stack([expert[name] - base for expert in specialists.experts]).double()
    part = specialists.parts[name]
    return (
        (part.matrices(base).double(), part.matrices(tasks, 1).transpose(0, 1))
        if part.kind == "matrix"
        else (base.double(), tasks)
    )


# ---- laws


@every_merger
def test_what_learned_comes_in_order_in_single_precision(merger: Merger) -> None:
    specialists = network()
    found = merged(merger, specialists)
    assert list(found) == LEARNED == specialists.names
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert tensor.shape == SHAPES[name][1]
        assert tensor.isfinite().all()


@every_merger
def test_nothing_is_written_to_and_nothing_shared(merger: Merger) -> None:
    specialists = network()
    states = [specialists.base, *specialists.experts]
    before = [{name: tensor.clone() for name, tensor in values.items()} for values in states]
    one_by_one = {name: tensor.clone() for name, tensor, _ in merger(specialists)}
    at_once = list(merger(specialists))
    equal({name: tensor for name, tensor, _ in at_once}, one_by_one)
    # two that take turns
    for (name, first, _), (_, second, _) in zip(
        merger(specialists), merger(specialists), strict=True
    ):
        assert torch.equal(first, one_by_one[name])
        assert torch.equal(second, one_by_one[name])
    memory = {tensor.untyped_storage().data_ptr() for _, tensor, _ in at_once}
    assert len(memory) == len(LEARNED)
    assert not memory & {
        tensor.untyped_storage().data_ptr() for values in states for tensor in values.values()
    }
    for values, old in zip(states, before, strict=True):
        equal(values, old)


@every_merger
def test_files_give_the_same_bits(merger: Merger, tmp_path: Path) -> None:
    specialists = network()
    files = []
    for place, values in enumerate([specialists.base, *specialists.experts]):
        save_file(dict(values), tmp_path / f"{place}.safetensors")
        files.append(StateFile(tmp_path / f"{place}.safetensors"))
    equal(merged(merger, Specialists(files[0], files[1:], PARTS)), merged(merger, specialists))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16], ids=str)
@every_merger
def test_half_precision_is_merged_in_single(merger: Merger, kind: torch.dtype) -> None:
    half = network(kind=kind)
    single = Specialists(
        cast(half.base, torch.float32),
        [cast(expert, torch.float32) for expert in half.experts],
        PARTS,
    )
    equal(merged(merger, half), merged(merger, single))


@pytest.mark.parametrize(
    "merger",
    [merger for name, merger in MERGERS.items() if name != "dare"],
    ids=[name for name in MERGERS if name != "dare"],
)
def test_the_order_of_experts_does_not_matter(merger: Merger) -> None:
    specialists = network(4)
    turned = Specialists(
        specialists.base, [specialists.experts[place] for place in (2, 0, 3, 1)], PARTS
    )
    close(merged(merger, turned), merged(merger, specialists), 1e-5)


@every_merger
def test_experts_that_did_not_learn_return_the_base(merger: Merger) -> None:
    base = network().base
    close(merged(merger, Specialists(base, [base] * 3, PARTS)), base, 1e-6)


@every_merger
def test_one_expert_that_did_not_learn_is_no_trouble(merger: Merger) -> None:
    specialists = network()
    found = merged(
        merger, Specialists(specialists.base, [*specialists.experts[:2], specialists.base], PARTS)
    )
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert not torch.equal(found["fc.weight"], specialists.base["fc.weight"])


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(
    "merger",
    [
        Average(),
        TaskArithmetic(1 / 3),
        TIES(1.0),
        TIES(1.0, trim="tensor"),
        DARE(0.0, 1 / 3),
        CART(),
        TSVM(),
    ],
    ids=["average", "task_arithmetic", "ties", "ties_tensor", "dare", "cart", "tsv"],
)
def test_copies_of_a_specialist_return_it(merger: Merger, rank: int) -> None:
    specialists = network(same=True, rank=rank)
    close(merged(merger, specialists), specialists.experts[0], 5e-6)


def test_copies_return_a_flattened_specialist_from_iso() -> None:
    specialists = network(same=True)
    found = merged(IsoC(1 / 3), specialists)
    for name in MATRICES:
        base, tasks = exact(specialists, name)
        values = torch.linalg.svdvals(PARTS[name].matrices(found[name]).double() - base)
        expected = torch.linalg.svdvals(tasks[:, 0]).mean(-1, keepdim=True).expand_as(values)
        torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
    close(merged(IsoC(), specialists), specialists.experts[0], names=["embed", "qkv.bias", "gain"])


@pytest.mark.parametrize("merger", [CART(0.4, 1.5), TSVM(), IsoC()], ids=["cart", "tsv", "iso"])
def test_stacked_matrices_and_convolutions_are_matrices_on_their_own(merger: Merger) -> None:
    specialists = network()

    def split(values: StateDict) -> dict[str, Tensor]:
        parts = dict(zip("qkv", values["qkv.weight"].chunk(3), strict=True))
        return {**parts, "conv": values["conv.weight"].flatten(1)}

    parts = dict.fromkeys(["q", "k", "v", "conv"], TensorPart("matrix"))
    apart = merged(
        merger,
        Specialists(
            split(specialists.base), [split(expert) for expert in specialists.experts], parts
        ),
    )
    equal(apart, split(merged(merger, specialists)))


@pytest.mark.parametrize(
    ("target", "settings", "sentence"),
    [
        (
            TaskArithmetic,
            {"scale": -0.1},
            r"merger.scale=-0.1 is out of range; give at least 0\.",
        ),
        (
            TaskArithmetic,
            {"scale": math.nan},
            r"merger.scale=nan is out of range; give at least 0\.",
        ),
        (
            TIES,
            {"density": 1.1},
            r"merger.density=1.1 is out of range; give a number from 0 to 1\.",
        ),
        (
            TIES,
            {"scale": math.inf},
            r"merger.scale=inf is out of range; give at least 0\.",
        ),
        (TIES, {"trim": "layer"}, r"merger.trim=layer is unknown; choose one of model, tensor\."),
        (
            DARE,
            {"drop_rate": -0.1},
            r"merger.drop_rate=-0.1 is out of range; give a number from 0 to 1\.",
        ),
        (
            DARE,
            {"scale": "much"},
            r"merger.scale=much is out of range; give at least 0\.",
        ),
        (DARE, {"seed": -1}, r"merger.seed=-1 is out of range; give at least 0\."),
        (CART, {"ratio": 2}, r"merger.ratio=2 is out of range; give a number from 0 to 1\."),
        (CART, {"svd": "fast"}, r"merger.svd=fast is unknown; choose one of exact, krylov\."),
        (
            CART,
            {"least_energy": 2},
            r"merger.least_energy=2 is out of range; give a number from 0 to 1\.",
        ),
        (
            R2MScript,
            {"alpha": -1},
            r"merger.alpha=-1 is out of range; give at least 0\.",
        ),
        (
            R2MScript,
            {"directions": 0},
            r"merger.directions=0 is out of range; give at least 1\.",
        ),
        (CART, {"prior": -1}, r"merger.prior=-1 is out of range; give at least 0\."),
        (TSVM, {"scale": -1}, r"merger.scale=-1 is out of range; give at least 0\."),
        (
            IsoC,
            {"scale": None},
            r"merger.scale=None is out of range; give at least 0\.",
        ),
    ],
    ids=str,
)
def test_coefficients_out_of_range_are_refused(
    target: Any, settings: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tests' type checker would speak first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=sentence):
        target(**settings)


@pytest.mark.parametrize(
    "target",
    [Average, TaskArithmetic, TIES, DARE, CART, TSVM, IsoC, R2MScript],
    ids=lambda target: target.__name__,
)
def test_a_configuration_holds_the_defaults(target: Any) -> None:
    config = OmegaConf.load(
        ROOT / "conf" / "merger" / f"{target.__module__.rsplit('.', 1)[1]}.yaml"
    )
    assert instantiate(config) == target()
    assert set(config) - {"_target_"} == set(target.__dataclass_fields__)


# ---- formulas


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_average_and_task_arithmetic_are_their_formulas(experts: int) -> None:
    specialists = network(experts)
    average, added = merged(Average(), specialists), merged(TaskArithmetic(0.3), specialists)
    for name in LEARNED:
        weights = torch.stack([expert[name].double() for expert in specialists.experts])
        base = specialists.base[name].double()
        torch.testing.assert_close(average[name].double(), weights.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            added[name].double(), base + 0.3 * (weights - base).sum(0), rtol=1e-6, atol=1e-6
        )


def naive_ties(base: Tensor, tasks: Tensor, kept: int, scale: float) -> Tensor:
    trimmed = torch.zeros_like(tasks)
    for row, task in zip(trimmed, tasks, strict=True):
        places = task.abs().topk(kept).indices
        row[places] = task[places]
    sign = trimmed.sum(0).sign()
    mean = torch.zeros_like(base)
    for place in range(len(base)):
        agreeing = [
            value
            for value in trimmed[:, place].tolist()
            if value and math.copysign(1, value) == sign[place]
        ]
        mean[place] = sum(agreeing) / max(1, len(agreeing))
    return base + scale * mean


@pytest.mark.parametrize("experts", [1, 2, 5])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.55, 1.0])
def test_ties_is_its_formula_over_the_whole_model(density: float, experts: int) -> None:
    specialists = network(experts)
    base = torch.cat([specialists.base[name].double().flatten() for name in LEARNED])
    tasks = torch.stack(
        [
            torch.cat(
                [(expert[name] - specialists.base[name]).double().flatten() for name in LEARNED]
            )
            for expert in specialists.experts
        ]
    )
    expected = naive_ties(base, tasks, max(1, int(density * len(base))), 0.8)
    found = merged(TIES(density, 0.8), specialists)
    torch.testing.assert_close(
        torch.cat([found[name].flatten() for name in LEARNED]).double(),
        expected,
        rtol=2e-6,
        atol=2e-6,
    )


def test_ties_trims_the_model_and_not_its_tensors() -> None:
    parts = {"large": TensorPart("other"), "small": TensorPart("other")}
    base = {name: torch.zeros(10) for name in parts}
    expert = {"large": torch.arange(11.0, 21.0), "small": torch.arange(1.0, 11.0)}
    found = merged(TIES(0.5), Specialists(base, [expert], parts))
    equal(found, {"large": expert["large"], "small": base["small"]})
    found = merged(TIES(0.5, trim="tensor"), Specialists(base, [expert], parts))
    equal(
        found,
        {
            "large": expert["large"] * (expert["large"] >= 16),
            "small": expert["small"] * (expert["small"] >= 6),
        },
    )


def test_ties_keeps_all_at_the_threshold_and_drops_what_cancels_out() -> None:
    parts = {"w": TensorPart("other")}
    base = {"w": torch.zeros(5)}
    experts = [
        {"w": torch.tensor([2.0, -2.0, 2.0, 1.0, 3.0])},
        {"w": torch.tensor([2.0, 2.0, -1.0, 1.0, -4.0])},
    ]
    for trim in ("model", "tensor"):
        # two of five, of which three have a magnitude of 2
        found = merged(TIES(0.4, trim=trim), Specialists(base, experts, parts))
        assert found["w"].tolist() == [2.0, 0.0, 2.0, 0.0, -4.0]
    assert merged(TIES(0.0), Specialists(base, experts, parts))["w"].tolist() == [0.0] * 5


@pytest.mark.parametrize("kept", [1, 2, 500, 4321, 9000, 10000])
def test_the_threshold_is_the_kth_largest_magnitude_of_all_pieces(kept: int) -> None:
    generator = torch.Generator().manual_seed(kept)
    wide = torch.randn(10000, generator=generator) * 10.0 ** torch.randint(
        -44, 38, (10000,), generator=generator
    )
    few = torch.randint(-40, 40, (10000,), generator=generator) / 8
    near = 1 + torch.randint(0, 1 << 20, (10000,), generator=generator) * 2.0**-23
    rows = torch.stack([wide, few, near, torch.zeros(10000)])
    found = magnitude_threshold(lambda: rows.split([1, 0, 2999, 7000], dim=1), 4, kept)
    assert found.tolist() == rows.abs().sort(descending=True).values[:, kept - 1].tolist()


def test_dare_drops_the_share_and_makes_up_for_it() -> None:
    parts = {"w": TensorPart("other")}
    ones = Specialists({"w": torch.zeros(20000)}, [{"w": torch.ones(20000)}], parts)
    for drop_rate in (0.1, 0.5, 0.9):
        found = merged(DARE(drop_rate, 1.0), ones)["w"]
        assert (found == 0).float().mean().item() == pytest.approx(drop_rate, abs=0.01)
        torch.testing.assert_close(
            found[found != 0], torch.full((int(found.count_nonzero()),), 1 / (1 - drop_rate))
        )


def test_dare_is_task_arithmetic_on_average() -> None:
    specialists = network()
    rate, scale, seeds = 0.7, 0.4, 400
    runs = [merged(DARE(rate, scale, seed), specialists) for seed in range(seeds)]
    expected = merged(TaskArithmetic(scale), specialists)
    for name in LEARNED:
        base, tasks = (
            specialists.base[name],
            [expert[name] - specialists.base[name] for expert in specialists.experts],
        )
        deviation = (
            scale * (sum(task.square() for task in tasks) * rate / (1 - rate) / seeds).sqrt()
        )
        found = torch.stack([run[name] for run in runs])
        assert ((found.mean(0) - expected[name]).abs() <= 4.5 * deviation + 1e-6).all(), name
        assert not torch.equal(found[0], base)


def test_dare_draws_by_seed_name_and_place_alone() -> None:
    specialists = network()
    whole = merged(DARE(), specialists)
    alone = merged(
        DARE(),
        Specialists(specialists.base, specialists.experts, {"fc.weight": PARTS["fc.weight"]}),
    )
    assert torch.equal(alone["fc.weight"], whole["fc.weight"])
    equal(merged(DARE(0.0), specialists), merged(TaskArithmetic(), specialists))
    close(merged(DARE(1.0), specialists), specialists.base, 0.0)
    samples = [
        torch.rand(8, generator=tensor_generator(*key)).tolist()
        for key in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "1 a", 0), (0, "a", 0)]
    ]
    assert len({tuple(sample) for sample in samples}) == 5
    assert samples[0] == samples[-1]
    # the same on every machine
    assert tensor_generator(0, "a", 0).initial_seed() == 4844968394188633870


@pytest.mark.parametrize("experts", [1, 2, 3, 5])
@pytest.mark.parametrize("ratio", [0.0, 0.34, 0.7, 1.0])
def test_cart_is_its_formula(ratio: float, experts: int) -> None:
    specialists = network(experts)
    found, average = merged(CART(ratio, 1.7), specialists), merged(Average(), specialists)
    for name in LEARNED:
        base, tasks = exact(specialists, name)
        if name in MATRICES:
            centre = tasks.mean(1, keepdim=True)
            u, s, vt = torch.linalg.svd(tasks - centre, full_matrices=False)
            rank = max(1, math.floor(ratio * s.shape[-1]))
            top = (u[..., :rank] * s[..., None, :rank]) @ vt[..., :rank, :]
            expected = base + centre[:, 0] + 1.7 * top.sum(1)
            torch.testing.assert_close(
                found[name].double(), expected.view(SHAPES[name][1]), rtol=5e-6, atol=5e-6
            )
        else:
            assert torch.equal(found[name], average[name])
    if experts <= 2 or ratio == 1:
        close(found, average, 5e-6)


def test_cart_reports_what_its_truncations_hold() -> None:
    generator = torch.Generator().manual_seed(5)
    base = {"w": torch.zeros(400, 300)}
    experts = [{"w": torch.randn(400, 300, generator=generator)} for _ in range(3)]
    exact, krylov, rejected = (
        next(
            CART(0.1, svd=svd, least_energy=least)(
                Specialists(base, experts, {"w": TensorPart("matrix")})
            )
        )
        for svd, least in (("exact", 0.9), ("krylov", 0.0), ("krylov", 0.9))
    )
    values = [
        torch.linalg.svdvals(expert["w"].double() - sum(one["w"] for one in experts) / 3).square()
        for expert in experts
    ]
    torch.testing.assert_close(
        torch.tensor(exact.record["energy"]),
        torch.stack([own[:30].sum() / own.sum() for own in values]).float(),
    )
    assert (exact.record["rank"], exact.record["of_best"]) == (30, [1.0] * 3)
    assert all(
        0.2 < bound < kept / best < 1
        for bound, kept, best in zip(
            krylov.record["of_best"], krylov.record["energy"], exact.record["energy"], strict=True
        )
    )
    assert rejected.record == {**exact.record, "rejected": krylov.record["of_best"]}
    assert torch.equal(rejected.tensor, exact.tensor)
    assert not torch.equal(krylov.tensor, exact.tensor)


def naive_tsv(tasks: Tensor) -> Tensor:
    u, s, vt = torch.linalg.svd(tasks, full_matrices=False)
    count = s.shape[-1] // len(tasks)
    left = torch.cat(list(u[:, :, :count]), 1)
    right = torch.cat(list(vt[:, :count]), 0)
    p, _, qt = torch.linalg.svd(left, full_matrices=False)
    a, _, bt = torch.linalg.svd(right, full_matrices=False)
    return p @ qt @ torch.diag(s[:, :count].flatten()) @ a @ bt


@pytest.mark.parametrize("experts", [1, 2, 3, 5])
def test_tsv_is_its_formula(experts: int) -> None:
    specialists = network(experts)
    found = merged(TSVM(0.7), specialists)
    for name in LEARNED:
        base, tasks = exact(specialists, name)
        task = (
            torch.stack([naive_tsv(matrices) for matrices in tasks])
            if name in MATRICES
            else tasks.mean(0)
        )
        torch.testing.assert_close(
            found[name].double(), (base + 0.7 * task).view(SHAPES[name][1]), rtol=2e-5, atol=2e-5
        )


def test_tsv_leaves_out_directions_that_are_not_there() -> None:
    first, second = torch.zeros(2, 6, 6).unbind()
    first[0, 0], second[1, 1] = 3.0, 2.0
    specialists = Specialists(
        {"w": torch.zeros(6, 6)}, [{"w": first}, {"w": second}], {"w": TensorPart("matrix")}
    )
    torch.testing.assert_close(merged(TSVM(), specialists)["w"], first + second)


def test_tsv_gives_every_one_of_many_experts_a_direction() -> None:
    specialists = network(9)  # more than the smallest matrices have singular values
    found = merged(TSVM(), specialists)
    for name in MATRICES:
        difference = PARTS[name].matrices(found[name] - specialists.base[name]).double()
        assert torch.linalg.matrix_rank(difference, rtol=1e-4).tolist() == [
            min(difference.shape[1:])
        ] * len(difference)


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_iso_is_its_formula(experts: int) -> None:
    specialists = network(experts)
    found = merged(IsoC(0.7), specialists)
    for name in LEARNED:
        base, tasks = exact(specialists, name)
        task = tasks.mean(0)
        if name in MATRICES:
            u, s, vt = torch.linalg.svd(tasks.sum(1), full_matrices=False)
            task = u @ torch.diag_embed(s.mean(-1, keepdim=True).expand_as(s)) @ vt
        torch.testing.assert_close(
            found[name].double(), (base + 0.7 * task).view(SHAPES[name][1]), rtol=2e-5, atol=2e-5
        )


def test_iso_counts_lacking_directions_in_the_mean_but_adds_none() -> None:
    task = torch.diag(torch.tensor([3.0, 1.0, 0.0, 0.0]))
    specialists = Specialists({"w": torch.zeros(4, 4)}, [{"w": task}], {"w": TensorPart("matrix")})
    torch.testing.assert_close(
        merged(IsoC(), specialists)["w"], torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    )


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (300, 250)], ids=str)
def test_the_polar_factor_is_an_isometry_on_the_space_that_is_there(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(size[0], 7, generator=generator) @ torch.randn(
        7, size[1], generator=generator
    )
    factor = polar_factor(matrix).double()
    values = torch.linalg.svdvals(factor)
    torch.testing.assert_close(values[:7], torch.ones(7, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert values[7:].max() < 1e-5
    stretch = factor.mT @ matrix.double()  # M = polar(M) sqrt(M^T M)
    scale = float(matrix.norm())
    torch.testing.assert_close(factor @ stretch, matrix.double(), rtol=0.0, atol=1e-6 * scale)
    torch.testing.assert_close(stretch, stretch.mT, rtol=0.0, atol=1e-6 * scale)
    assert torch.linalg.eigvalsh((stretch + stretch.mT) / 2).min() > -1e-6 * scale
    assert [len(singular_triplets(matrix, limit).s) for limit in (None, 9, 4)] == [7, 7, 4]
    assert not polar_factor(torch.zeros(size)).any()


# ---- parity


def mergekit(method: str, specialists: Specialists, **parameters: float) -> dict[str, Tensor]:
    """What mergekit's own method makes of the tensors."""
    from mergekit.merge_methods import registry
    from mergekit.merge_methods.base import TensorGroup

    groups = [
        TensorGroup.from_tensors(
            [specialists.base[name], *(expert[name] for expert in specialists.experts)],
            base_index=0,
            name=name,
        )
        for name in specialists.names
    ]
    return dict(
        zip(
            specialists.names,
            registry.get(method)(groups, parameters={"weight": 1.0, **parameters}),
            strict=True,
        )
    )


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_parity_with_mergekit(experts: int) -> None:
    specialists = network(experts)
    close(
        merged(TaskArithmetic(0.3), specialists),
        mergekit("task_arithmetic", specialists, **{"lambda": 0.3}),
        1e-6,
    )
    for density in (0.01, 0.2, 0.7, 1.0):
        ours = merged(TIES(density, 0.8, "tensor"), specialists)
        close(ours, mergekit("ties", specialists, density=density, **{"lambda": 0.8}), 1e-6)
