"""Cross-AUC: equal to the AUC of the items that it names, and blind to what cannot matter."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fmsd.metrics.cross_auc import Classes, cross_auc


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
    np.testing.assert_allclose(
        found.pooled, [auc(pool, fake) for _, fake in sets.values()], atol=1e-12
    )
    apart = [found.matrix[one, other] for one in range(3) for other in range(3) if one != other]
    assert found.across == pytest.approx(np.mean(apart))
    assert found.within == pytest.approx(np.mean(np.diag(expected)))


def test_a_shift_of_one_dataset_changes_pairs_with_others_alone() -> None:
    sets = datasets()
    real, fake = sets["b"]
    shifted = cross_auc({**sets, "b": (real + 50, fake + 50)})
    found = cross_auc(sets)
    assert shifted.within == pytest.approx(found.within)
    assert shifted.matrix[0, 1] == 1
    assert shifted.matrix[1, 0] == 0
    assert shifted.matrix[0, 2] == found.matrix[0, 2]


def test_copies_of_one_dataset_have_one_value_and_a_single_dataset_none_across() -> None:
    one = datasets()["a"]
    found = cross_auc({"x": one, "y": one})
    assert np.unique(found.matrix.round(15)).size == 1
    assert found.across == pytest.approx(found.within)
    assert math.isnan(cross_auc({"x": one}).across)
