"""How narrow the interval of a median is over rounds, and when measuring ends."""

import numpy as np
import pytest

from distill.metrics.rounds import Rounds, Until, interval_of_median
from distill.recipe.schema import Benchmark, Recipe


def answer(latency, throughput=(100.0,), seconds=1.0):
    return {"latency": list(latency), "throughput": list(throughput), "seconds": seconds}


def test_drift_between_rounds_widens_the_interval():
    rng = np.random.default_rng(0)
    steady = [10 + rng.normal(size=40) for _ in range(6)]
    drifting = [values + shift for values, shift in zip(steady, (0, 1, 2, 3, 4, 5), strict=True)]
    widths = [high - low for low, high in map(interval_of_median, (steady, drifting))]
    assert widths[0] < 1 and widths[1] > 2 * widths[0]


def test_the_interval_covers_what_it_says():
    """Of 200 measurements with drift, the true median is in about 95 in 100 intervals; five rounds are few, and it is wide."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        rounds = [10 + drift + rng.normal(size=20) for drift in rng.normal(scale=0.5, size=8)]
        low, high = interval_of_median(rounds)
        hits += low <= 10 <= high
    assert 0.9 <= hits / 200 <= 1


def test_measuring_goes_on_until_all_are_narrow():
    taken = Rounds(2, Until(interval=0.1, seconds=100))
    for values in ([9, 10, 14], [10, 10, 12], *[[10] * 30] * 20):
        for place in taken.order:
            taken.keep(place, answer(values if place else [5.0]))
        taken.number += 1
        if not taken.go_on():
            break
    said = taken.described()
    assert said["ended_by"] == "interval" and 3 <= said["rounds"] < 22 and said["widest"] <= 0.1
    assert taken.sizes(1)["latency_per_round"][:3] == [3, 3, 30]


def test_the_limit_of_time_ends_it_and_is_said():
    taken = Rounds(2, Until(interval=0.01, seconds=3))
    while taken.number < 2 or taken.go_on():
        for place in taken.order:
            taken.keep(place, answer([8, 10, 12]))
        taken.number += 1
    said = taken.described()
    assert said["ended_by"] == "seconds" and said["rounds"] == 6 and said["seconds"] == 12  # 3 s · 2 models · 2 kinds
    assert said["max_seconds"] == 3 and said["interval"] == 0.01 and said["widest"] > 0.01


def test_no_interval_asks_for_no_round():
    taken = Rounds(1, Until())
    taken.keep(0, answer([8, 12]))
    taken.number = 1
    assert not taken.go_on() and taken.described() == {"rounds": 1, "seconds": 1.0, "ended_by": "rounds"}


@pytest.mark.parametrize(("number", "order"), [(0, [0, 1, 2]), (1, [1, 2, 0]), (3, [0, 1, 2])])
def test_nobody_is_always_first(number, order):
    assert Rounds(3, Until(), number=number).order == order


def test_rows_share_a_minute_unless_a_time_or_an_interval_is_stated():
    for n_rows in (1, 3, 14):
        seconds, most = Benchmark().seconds_for(n_rows)
        assert n_rows * (seconds + 2 * most) <= 60 + 1e-9  # by length; latency and throughput until the interval
        assert most == 2 * seconds and seconds <= 10
    assert Benchmark(interval=0.1).seconds_for(14) == (10, 30)  # as before there was a minute
    assert Benchmark(seconds=4).seconds_for(14) == (4, 12)
    assert Benchmark(max_seconds=5).seconds_for(14) == (5, 5)
    (stage,) = Recipe(name="x", data={"train": "bundled"}, benchmark={"interval": 0.1}).in_stages
    assert stage.benchmark.seconds_for(14) == (10, 30)
