"""How many pairs all rows of a report are measured over."""

import pytest

from distill.evaluation.latency import _same_pairs


@pytest.mark.parametrize(
    ("fits", "n_pairs", "expected"),
    [
        ([(3, 8), (900, 700)], 800, (24, 64)),  # a slow model still goes through the least
        ([(30, 100), (900, 700)], 800, (150, 100)),  # five rounds of what the slowest has time for
        ([(900, 700)], 800, (200, 700)),
        ([(900, 700)], 16, (16, 16)),  # there are no more
    ],
)
def test_all_models_are_measured_over_the_same_pairs(fits, n_pairs, expected):
    asked = [{"latency": latency, "throughput": throughput} for latency, throughput in fits]
    assert _same_pairs(asked, n_pairs, 5) == expected
