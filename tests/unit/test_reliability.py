"""Expected calibration error and Brier score: hand-worked numbers, and what they say of models whose error is known."""

import numpy as np
import pytest

from distill.errors import BadInput
from distill.metrics.measures import Bootstrap
from distill.metrics.reliability import equal_mass_bins, expected_calibration_error, reliability


def drawn(rng, n, power=1.0):
    """Stated probabilities, and labels drawn with their power: 1 is without error."""
    stated = rng.uniform(0.02, 0.98, n)
    return stated, (rng.random(n) < stated**power).astype(float)


def test_two_bins_by_hand():
    # 20 pairs at 0.2 with 5 matches, 20 at 0.7 with 18: (|0.2 − 0.25| + |0.7 − 0.9|) / 2
    stated = np.repeat([0.2, 0.7], 20)
    labels = np.r_[np.ones(5), np.zeros(15), np.ones(18), np.zeros(2)]
    found = reliability(stated, labels, None, Bootstrap(2000, 0))
    assert found.plain == pytest.approx(0.125)
    # (5·0.64 + 15·0.04 + 18·0.09 + 2·0.49) / 40
    assert found.brier.value == pytest.approx(0.16)
    assert [(round(one.probability, 3), one.share.value, one.share.n) for one in found.bins] == [
        (0.2, 0.25, 20),
        (0.7, 0.9, 20),
    ]
    # the share of a bin scatters by √(p(1 − p)/20), half of the pairs are in it, and a normal's mean distance is σ·√(2/π)
    errors = [np.sqrt(p * (1 - p) / 20) / 2 for p in (0.25, 0.9)]
    assert found.noise == pytest.approx(np.sum(errors) * np.sqrt(2 / np.pi), rel=0.15)


def test_bins_hold_equal_masses_and_equal_values_stay_together():
    numbers = equal_mass_bins(np.random.default_rng(0).permutation(1000) / 1000)
    assert np.bincount(numbers).tolist() == [100] * 10
    assert len(np.unique(equal_mass_bins(np.full(500, 0.3)))) == 1
    assert equal_mass_bins(np.array([0.4])).tolist() == [0]
    ties = np.r_[np.zeros(150), np.linspace(0.1, 1, 50)]
    assert len(np.unique(equal_mass_bins(ties)[:150])) == 1


def test_the_order_of_pairs_does_not_matter_where_probabilities_are_equal():
    """Isotonic probabilities tie; a file is often sorted by its labels."""
    stated = np.full(400, 0.5)
    assert expected_calibration_error(stated, np.r_[np.ones(200), np.zeros(200)]) == 0


def test_a_model_without_error_is_not_said_to_have_one():
    rng = np.random.default_rng(1)
    found = [reliability(*drawn(rng, 400), None, Bootstrap(200, seed)) for seed in range(40)]
    plain, corrected = np.mean([one.plain for one in found]), np.mean([one.ece.value for one in found])
    assert plain == pytest.approx(np.mean([one.noise for one in found]), rel=0.1)  # the bias is the one that is stated
    assert corrected < 0.7 * plain
    assert np.mean([one.ece.low == 0 for one in found]) >= 0.9


def test_the_interval_holds_the_error_that_is_there():
    rng = np.random.default_rng(2)
    grid = np.linspace(0.02, 0.98, 100_001)
    truth = np.abs(grid - grid**2).mean()
    found = [reliability(*drawn(rng, 1000, power=2.0), None, Bootstrap(300, seed)) for seed in range(40)]
    assert np.mean([one.ece.low <= truth <= one.ece.high for one in found]) >= 0.85
    assert np.mean([one.ece.value for one in found]) == pytest.approx(truth, abs=0.01)


def test_queries_are_resampled_whole():
    rng = np.random.default_rng(3)
    stated = np.repeat(rng.uniform(0, 1, 40), 10)
    labels = np.repeat((rng.random(40) < 0.5).astype(float), 10)
    whole = reliability(stated, labels, np.repeat(np.arange(40), 10), Bootstrap(300, 0)).brier
    alone = reliability(stated, labels, None, Bootstrap(300, 0)).brier
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_grades_are_compared_with_the_mean_grade():
    stated = np.repeat([0.25, 0.75], 50)
    assert expected_calibration_error(stated, stated) == 0
    found = reliability(stated, stated, None, Bootstrap(50, 0))
    assert found.ece.value == 0 and found.brier.value == 0 and found.noise == 0


def test_what_is_no_probability_is_refused():
    with pytest.raises(BadInput, match="not finite"):
        reliability(np.array([0.1, np.nan]), np.ones(2), None, Bootstrap(10, 0))
    with pytest.raises(BadInput, match="map them to"):
        reliability(np.array([0.1, 3.0]), np.ones(2), None, Bootstrap(10, 0))
