"""Laws of the losses: each term against its definition, and what must have no influence."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fmsd.errors import InputError
from fmsd.losses.classification import classification
from fmsd.losses.consistency import consistency
from fmsd.losses.detection import DetectionLoss
from fmsd.losses.loss import Loss, Outputs, check_batch_size, check_views
from fmsd.losses.pairs import alignment, uniformity

LOSSES = {
    "bce": DetectionLoss(),
    "smoothed": DetectionLoss(smoothing=0.1),
    "gend": DetectionLoss(uniformity=0.5, alignment=0.1),
    "consistency": DetectionLoss(smoothing=0.1, consistency=0.5, strong_share=0.5, ramp=0.3),
    "all": DetectionLoss(0.1, 0.5, 0.1, 0.5, 0.25, 0.5),
}

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))


def outputs(count: int = 7, **changes: Any) -> Outputs:
    """Outputs in float64 whose tensors have gradients."""
    generator = torch.Generator().manual_seed(count)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return drawn.requires_grad_()

    values: dict[str, Any] = {
        "logit": draw(count),
        "label": (torch.arange(count) % 3 > 0).long(),
        "weight": torch.ones(count, dtype=torch.float64),
        "progress": 0.2,
        "feature": draw(count, 5),
        "strong_logit": draw(count),
    }
    return Outputs(**(values | changes))


def mean(loss: Loss, given: Outputs) -> Tensor:
    """The loss of a step of one batch."""
    losses = torch.stack(list(loss(given).values())).sum(0)
    return (losses * given.weight).sum() / given.weight.sum()


def taken(given: Outputs, rows: Any) -> Outputs:
    """Some of the frames, as leaves of a new graph."""
    chosen = {
        name: each[rows].detach().requires_grad_(each.is_floating_point())
        for name, each in given._asdict().items()
        if isinstance(each, Tensor)
    }
    return given._replace(**chosen)


def test_smoothed_labels_are_those_of_torch_with_two_classes() -> None:
    given = outputs(20)
    for smoothing in (0.0, 0.1, 1.0):
        both = torch.stack([torch.zeros_like(given.logit), given.logit], 1)
        expected = functional.cross_entropy(
            both, given.label, reduction="none", label_smoothing=smoothing
        )
        found = classification(given.logit, given.label, smoothing)
        torch.testing.assert_close(found, expected)


def test_plain_cross_entropy_is_torchs_bit_for_bit() -> None:
    logit = torch.randn(50) * 8
    label = torch.arange(50) % 2
    expected = functional.binary_cross_entropy_with_logits(logit, label.float(), reduction="none")
    (found,) = DetectionLoss()(Outputs(logit, label, torch.ones(50))).values()
    assert torch.equal(found, expected)


def naive_terms(given: Outputs) -> tuple[float, float]:
    """Uniformity and alignment by two loops."""
    assert given.feature is not None
    z = [row / row.norm() for row in given.feature.detach()]
    pairs = list(itertools.permutations(range(len(z)), 2))
    distances = {(i, j): float((z[i] - z[j]).norm()) ** 2 for i, j in pairs}
    spread = [math.exp(-2 * distance) for distance in distances.values()]
    near = [own for (i, j), own in distances.items() if given.label[i] == given.label[j]]
    return math.log(sum(spread) / len(spread)), sum(near) / len(near)


def test_terms_of_pairs_are_their_definition() -> None:
    given = outputs(9)
    found = LOSSES["gend"](given)
    for name, weight, value in zip(
        ("uniformity", "alignment"), (0.5, 0.1), naive_terms(given), strict=True
    ):
        assert found[name].tolist() == pytest.approx([weight * value] * 9, rel=1e-12)


def test_one_batch_has_gends_formula() -> None:
    given = outputs(9)
    spread, near = naive_terms(given)
    plain = functional.binary_cross_entropy_with_logits(given.logit, given.label.double())
    assert mean(LOSSES["gend"], given).item() == pytest.approx(
        float(plain) + 0.5 * spread + 0.1 * near, rel=1e-12
    )


def test_the_divergence_is_torchs_and_moves_the_strong_view_alone() -> None:
    given = outputs(8)
    weak, strong = given.logit, given.strong_logit
    assert strong is not None

    def both(logit: Tensor) -> Tensor:
        return functional.logsigmoid(torch.stack([-logit, logit], 1))

    found = consistency(weak, strong)
    expected = functional.kl_div(both(strong), both(weak), reduction="none", log_target=True)
    torch.testing.assert_close(found, expected.sum(1))
    assert (found >= 0).all()
    assert torch.equal(consistency(weak, weak), torch.zeros_like(weak))
    one, two = torch.autograd.grad(found.sum(), [weak, strong], allow_unused=True)
    assert one is None
    assert two.abs().min() > 0


def test_the_weight_of_consistency_rises_over_its_share_of_the_steps() -> None:
    loss = LOSSES["consistency"]
    full = loss(outputs(progress=0.3))["consistency"]
    assert (full > 0).all()
    for progress, share in ((0.0, 0.0), (0.15, 0.5), (0.9, 1.0)):
        torch.testing.assert_close(loss(outputs(progress=progress))["consistency"], share * full)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_the_strong_view_divides_the_cross_entropy(share: float) -> None:
    given = outputs()
    assert given.strong_logit is not None
    found = DetectionLoss(strong_share=share)(given)["classification"]
    one = classification(given.logit, given.label)
    two = classification(given.strong_logit, given.label)
    torch.testing.assert_close(found, (1 - share) * one + share * two)


@every_loss
def test_gradients_are_those_of_finite_differences(loss: DetectionLoss) -> None:
    given = outputs(5)
    assert given.feature is not None
    assert given.strong_logit is not None
    weak = given.logit.detach().clone()

    def value(logit: Tensor, feature: Tensor, strong: Tensor) -> Tensor:
        terms = loss(given._replace(logit=logit, feature=feature, strong_logit=strong))
        if "consistency" in terms:  # the weak view is a constant of this term
            fixed = loss(given._replace(logit=weak, feature=feature, strong_logit=strong))
            terms = {**terms, "consistency": fixed["consistency"]}
        return torch.stack(list(terms.values())).sum(0)

    assert torch.autograd.gradcheck(value, (given.logit, given.feature, given.strong_logit))


@every_loss
def test_the_order_of_frames_does_not_matter(loss: DetectionLoss) -> None:
    given = outputs(8)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mean(loss, taken(given, order)), mean(loss, given))


@every_loss
def test_padding_has_no_influence(loss: DetectionLoss) -> None:
    given = outputs(8)
    real = taken(given, slice(5))
    padded = taken(given, slice(None))._replace(weight=torch.tensor([1.0] * 5 + [0.0] * 3).double())
    expected, found = mean(loss, real), mean(loss, padded)
    torch.testing.assert_close(found, expected)
    expected.backward()
    found.backward()
    for name in ("logit", "feature", "strong_logit"):
        one, other = getattr(real, name).grad, getattr(padded, name).grad
        if one is not None:
            torch.testing.assert_close(other[:5], one)
            assert not other[5:].any()


@every_loss
@pytest.mark.parametrize("kind", ["one", "two classes", "one class", "equal", "zero", "padding"])
def test_a_part_with_few_or_equal_frames_has_a_finite_gradient(
    loss: DetectionLoss, kind: str
) -> None:
    count = 1 if kind == "one" else 2 if kind == "two classes" else 4
    given = outputs(count)
    if kind == "one class":
        given = given._replace(label=torch.ones(4, dtype=torch.long))
    if kind in ("equal", "zero"):
        feature = torch.full((4, 5), float(kind == "equal"), dtype=torch.float64)
        given = given._replace(feature=feature.requires_grad_())
    if kind == "padding":
        given = given._replace(weight=torch.zeros(4).double())
    losses = loss(given)
    if kind in ("one", "padding") and loss.needs_features:
        assert not losses["uniformity"].any()
        assert not losses["alignment"].any()
    if kind == "two classes" and loss.needs_features:
        assert not losses["alignment"].any()
    torch.stack(list(losses.values())).sum().backward()
    tensors = (given.logit, given.feature, given.strong_logit)
    gradients = [each.grad for each in tensors if each is not None and each.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_terms_ignore_the_length_of_features() -> None:
    given = outputs(6)
    assert given.feature is not None
    counted = torch.ones(6, dtype=torch.bool)
    lengths = torch.tensor([0.1, 1.0, 3.0, 10.0, 50.0, 0.5]).double()[:, None]
    longer = given.feature * lengths
    torch.testing.assert_close(uniformity(longer, counted), uniformity(given.feature, counted))
    torch.testing.assert_close(
        alignment(longer, given.label, counted), alignment(given.feature, given.label, counted)
    )


@every_loss
def test_a_loss_names_its_terms_and_asks_for_what_it_reads(loss: DetectionLoss) -> None:
    assert isinstance(loss, Loss)
    given = outputs()
    if not loss.needs_features:
        given = given._replace(feature=None)
    if not loss.needs_strong_view:
        given = given._replace(strong_logit=None)
    assert tuple(loss(given)) == tuple(loss.terms)
    assert all(losses.shape == given.logit.shape for losses in loss(given).values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("smoothing", value) for value in (-0.1, 1.5, float("nan"))),
        *(("strong_share", value) for value in (-0.1, 1.5)),
        *((name, -1.0) for name in ("uniformity", "alignment", "consistency", "ramp")),
        ("uniformity", float("inf")),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"loss\.{name}=.* is out of range"):
        DetectionLoss(**{name: value})


def test_a_view_that_is_missing_or_idle_is_refused() -> None:
    for name in ("consistency", "all"):
        check_views(LOSSES[name], "dfb")
        with pytest.raises(InputError, match=r"second view.*data\.strong is not set.*strong=dfb"):
            check_views(LOSSES[name], None)
    for name in ("bce", "gend"):
        check_views(LOSSES[name], None)
        with pytest.raises(
            InputError, match=r"data\.strong=dfb loads a second view.*data.strong=null"
        ):
            check_views(LOSSES[name], "dfb")


def test_a_batch_without_a_pair_is_refused_by_a_loss_of_pairs() -> None:
    check_batch_size(LOSSES["bce"], 1, 1)
    check_batch_size(LOSSES["gend"], 4, 2)
    with pytest.raises(InputError, match=r"uniformity and alignment, but data\.batch_size=1 "):
        check_batch_size(LOSSES["gend"], 1, 1)
    with pytest.raises(InputError, match=r"=3 in 2 processes .*set data\.batch_size=4 or more"):
        check_batch_size(LOSSES["gend"], 3, 2)
