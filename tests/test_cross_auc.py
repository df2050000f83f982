"""Cross-AUC: equal to the AUC of the items that it names, and blind to what cannot matter."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fmsd.metrics.cross_auc import Classes, cross_auc, mean_cross_auc
from fmsd.metrics.delong import placements


def datasets(ties: bool = False) -> dict[str, Classes]:
    rng = np.random.default_rng(0)
    found = {
        name: (rng.normal(shift, 1, 20 + 7 * shift), rng.normal(shift + 1, 1, 30 + shift))
        for shift, name in enumerate("abc")
    }
    if ties:
        return {name: (real.round(), fake.round()) for name, (real, fake) in found.items()}
    return found


def auc(real: np.ndarray, fake: np.ndarray) -> float:
    labels = np.repeat([0, 1], [len(real), len(fake)])
    return float(roc_auc_score(labels, np.concatenate([real, fake])))


@pytest.mark.parametrize("ties", [False, True])
def test_every_value_is_the_auc_of_its_reals_and_fakes(ties: bool) -> None:
    sets = datasets(ties)
    found = cross_auc(sets)
    expected = [[auc(real, fake) for _, fake in sets.values()] for real, _ in sets.values()]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-12)
    pool = np.concatenate([real for real, _ in sets.values()])
    pooled = [auc(pool, fake) for _, fake in sets.values()]
    np.testing.assert_allclose(
        [found.pooled_of(place).value for place in range(3)], pooled, atol=1e-12
    )
    assert found.pooled.value == pytest.approx(np.mean(pooled))
    apart = [found.matrix[one, other] for one in range(3) for other in range(3) if one != other]
    assert found.across.value == pytest.approx(np.mean(apart))
    assert found.within.value == pytest.approx(np.mean(np.diag(expected)))


def test_a_shift_of_one_dataset_changes_pairs_with_others_alone() -> None:
    sets = datasets()
    real, fake = sets["b"]
    shifted = cross_auc({**sets, "b": (real + 50, fake + 50)})
    found = cross_auc(sets)
    assert shifted.within.value == pytest.approx(found.within.value)
    assert shifted.matrix[0, 1] == 1
    assert shifted.matrix[1, 0] == 0
    assert shifted.matrix[0, 2] == found.matrix[0, 2]


def test_copies_of_one_dataset_have_one_value_and_a_single_dataset_none_across() -> None:
    one = datasets()["a"]
    found = cross_auc({"x": one, "y": one})
    assert np.unique(found.matrix.round(15)).size == 1
    assert found.across.value == pytest.approx(found.within.value)
    assert math.isnan(cross_auc({"x": one}).across.value)


def test_variances_are_delongs_and_means_count_the_videos_that_pairs_share() -> None:
    sets = datasets(ties=True)
    found = cross_auc(sets)
    for one, (real, _) in enumerate(sets.values()):
        for other, (_, fake) in enumerate(sets.values()):
            assert found.pair(one, other).variance == pytest.approx(placements(real, fake).variance)
    copies = cross_auc({"x": sets["a"], "y": sets["b"], "z": sets["b"]})
    assert copies.only(["x", "y"]).across == pytest.approx(
        cross_auc(dict(list(sets.items())[:2])).across
    )
    rng = np.random.default_rng(1)
    draws = [
        cross_auc(
            {
                name: tuple(rng.choice(scores, len(scores)) for scores in classes)
                for name, classes in sets.items()
            }
        )
        for _ in range(1500)
    ]
    for kind in ("within", "across", "pooled"):
        resampled = np.var([getattr(draw, kind).value for draw in draws])
        assert getattr(found, kind).variance == pytest.approx(resampled, rel=0.2)


def test_pairs_of_few_videos_are_left_out_of_every_mean() -> None:
    sets = datasets()
    few = {**sets, "c": (sets["c"][0][:9], sets["c"][1])}
    found = cross_auc(few)
    assert found.enough.sum() == 6
    assert math.isnan(found.pair(2, 0).value)
    apart = [(0, 1), (1, 0), (0, 2), (1, 2)]
    assert found.across.value == pytest.approx(np.mean([found.matrix[pair] for pair in apart]))
    assert found.within.value == pytest.approx(np.mean([found.matrix[i, i] for i in (0, 1)]))
    pool = np.concatenate([sets["a"][0], sets["b"][0]])
    assert found.pooled_of(2).value == pytest.approx(auc(pool, sets["c"][1]))


def test_the_mean_over_seeds_is_of_the_datasets_that_all_have() -> None:
    sets = datasets()
    one, other = cross_auc(sets), cross_auc({name: sets[name] for name in "ca"})
    mean = mean_cross_auc([one, other])
    assert mean.datasets == ["a", "c"]
    np.testing.assert_allclose(mean.matrix, one.only(["a", "c"]).matrix)
    assert mean.across == pytest.approx(one.only(["a", "c"]).across)
