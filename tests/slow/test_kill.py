"""SIGKILL at random moments of each stage, until the run is done: what stands there at the end is what an undisturbed run makes."""

import pytest

from tests.slow.killing import STAGES, Campaign

pytestmark = pytest.mark.slow

N_KILLS = 20  # in all stages together; `make kills` takes more


def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path):
    Campaign(tmp_path / "kills", N_KILLS // 2).run()
    campaign = Campaign(tmp_path / "kills", N_KILLS)  # one that was stopped goes on, and a larger one adds to it
    campaign.run()
    assert campaign.faults() == []
    assert sum(row["killed"] for row in campaign.rows) == N_KILLS
    assert all(campaign.kills(name) == campaign.share(name) > 0 for name in STAGES)
    assert [row["stage"] for row in campaign.rows].count("finish") == 2
