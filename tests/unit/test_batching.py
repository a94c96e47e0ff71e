import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.training.batching import Planner, cut_by_length


def cost(lengths, ends, pass_price):
    """What a cut costs: every pass is padded to its longest, and each has its price."""
    starts = [0, *ends[:-1]]
    return sum((end - start) * lengths[end - 1] + pass_price for start, end in zip(starts, ends, strict=True))


def allowed(lengths, ends, size, token_budget):
    starts = [0, *ends[:-1]]
    return all(
        end - start <= size and (end - start == 1 or (end - start) * lengths[end - 1] <= token_budget)
        for start, end in zip(starts, ends, strict=True)
    )


def cheapest(lengths, size, token_budget, pass_price):
    """Try every cut there is."""
    n = len(lengths)
    cuts = ([*inner, n] for k in range(n) for inner in itertools.combinations(range(1, n), k))
    return min(
        cost(lengths, list(ends), pass_price) for ends in cuts if allowed(lengths, list(ends), size, token_budget)
    )


class TestCut:
    @given(
        lengths=st.lists(st.integers(1, 100), min_size=1, max_size=9).map(sorted),
        size=st.integers(1, 9),
        token_budget=st.integers(1, 400),
        pass_price=st.integers(0, 300),
    )
    @settings(max_examples=200, deadline=None)
    def test_is_the_cheapest_of_all_that_are_allowed(self, lengths, size, token_budget, pass_price):
        ends = cut_by_length(np.array(lengths), size=size, token_budget=token_budget, pass_price=pass_price)
        assert ends[-1] == len(lengths)
        assert ends == sorted(set(ends))
        assert allowed(lengths, ends, size, token_budget)
        assert cost(lengths, ends, pass_price) == cheapest(lengths, size, token_budget, pass_price)

    def test_longer_than_the_budget_goes_alone(self):
        assert cut_by_length(np.array([10, 500, 600]), size=8, token_budget=100, pass_price=1) == [1, 2, 3]

    def test_of_nothing_is_nothing(self):
        assert cut_by_length(np.array([], dtype=int), size=8, token_budget=100, pass_price=1) == []


def planner(n=100, sequences=1, **settings):
    lengths = np.random.default_rng(5).integers(4, 60, n)
    defaults = {"global_batch": 16, "micro_batch": 8, "token_budget": 400, "seed": 7}
    return Planner(lengths=lengths, sequences=np.broadcast_to(sequences, n), **{**defaults, **settings})


def units_of(passes):
    return np.concatenate([units for per_process in passes for units in per_process])


VARIANTS = [
    {},
    {"n_processes": 2},
    {"n_processes": 3},
    {"coupled": True},
    {"coupled": True, "n_processes": 2},
    {"micro_batch": 1},
    {"token_budget": 1},
    {"global_batch": 1},
    {"global_batch": 1000, "n_processes": 3},
    {"sequences": 2},
    {"device": "cuda"},
]


class TestPlanner:
    @pytest.mark.parametrize("settings", VARIANTS, ids=str)
    def test_every_unit_comes_once_an_epoch(self, settings):
        plan = planner(**settings)
        for epoch in range(2):
            steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
            units = np.concatenate([units_of(plan.step(number)) for number in steps])
            assert sorted(units.tolist()) == list(range(100))

    @pytest.mark.parametrize("settings", VARIANTS, ids=str)
    def test_every_process_makes_the_same_number_of_passes_within_the_limits(self, settings):
        plan = planner(**settings)
        for number in range(plan.steps_per_epoch):
            for per_process in plan.step(number):
                assert len(per_process) == plan.n_processes
                sizes = [len(units) for units in per_process]
                assert max(sizes) <= plan.micro_batch
                assert max(sizes) - min(sizes) <= 1
                for units in per_process:
                    padded = plan.lengths[units].max(initial=0) * plan.sequences[units].sum()
                    assert len(units) <= 1 or padded <= plan.token_budget

    def test_steps_hold_a_global_batch_and_the_last_one_what_is_left(self):
        sizes = [len(units_of(planner().step(number))) for number in range(7)]
        assert sizes == [16, 16, 16, 16, 16, 16, 4]

    def test_which_units_make_a_step_does_not_depend_on_how_it_is_cut(self):
        plans = [
            planner(**settings) for settings in ({}, {"micro_batch": 2}, {"token_budget": 100}, {"n_processes": 2})
        ]
        for number in (0, 3, 6, 9):
            steps = [sorted(units_of(plan.step(number)).tolist()) for plan in plans]
            assert steps.count(steps[0]) == len(steps)

    def test_is_the_same_every_time_and_another_for_another_seed_and_epoch(self):
        first = [units.tolist() for per_process in planner().step(0) for units in per_process]
        assert first == [units.tolist() for per_process in planner().step(0) for units in per_process]
        assert sorted(sum(first, [])) != sorted(units_of(planner(seed=8).step(0)).tolist())
        assert sorted(sum(first, [])) != sorted(units_of(planner().step(7)).tolist())

    def test_steps_are_a_random_sample_not_sorted_by_length(self):
        plan = planner(n=1600)
        means = [plan.lengths[units_of(plan.step(number))].mean() for number in range(plan.steps_per_epoch)]
        # 16 draws from a spread of 16 tokens: the means of steps spread by about 4, sorted steps would by about 16
        assert np.std(means) < 6

    def test_neighbours_in_length_go_together(self):
        plan = planner(global_batch=100, n_processes=2)
        ends = [max(plan.lengths[units].max() for units in per_process if len(units)) for per_process in plan.step(0)]
        starts = [min(plan.lengths[units].min() for units in per_process if len(units)) for per_process in plan.step(0)]
        assert all(
            end <= start
            for end, start in itertools.pairwise([end for pair in zip(starts, ends, strict=True) for end in pair])
        )

    def test_a_coupled_step_that_fits_is_one_pass_and_a_larger_one_is_cut_as_any_other(self):
        # a second pass would cost a second run of both, which no padding is worth
        whole = planner(coupled=True, micro_batch=16, token_budget=16 * 60).step(0)
        assert [[len(units) for units in per_process] for per_process in whole] == [[16]]
        assert len(planner(micro_batch=16, token_budget=16 * 60).step(0)) > 1
        for limits in ({}, {"micro_batch": 16}, {"token_budget": 16 * 60}, {"n_processes": 2}):
            parts, others = (planner(coupled=coupled, **limits).step(0) for coupled in (True, False))
            assert [[units.tolist() for units in per_process] for per_process in parts] == [
                [units.tolist() for units in per_process] for per_process in others
            ]

    def test_evaluation_sees_every_unit_once(self):
        for n, n_processes in ((100, 1), (100, 3), (1200, 2), (1, 2)):
            passes = list(planner(n=n, n_processes=n_processes).evaluation())
            assert sorted(units_of(passes).tolist()) == list(range(n))
            assert all(len(per_process) == n_processes for per_process in passes)

    def test_large_steps_are_planned_in_slices_and_lose_nothing(self):
        plan = planner(n=3000, global_batch=3000, micro_batch=64, token_budget=10_000, n_processes=2)
        assert sorted(units_of(plan.step(0)).tolist()) == list(range(3000))
