"""Sixteen environments that fail in all ways, as in `benchmarks/soak.py`, and rewards beyond all measure."""

import sys
from pathlib import Path

import pytest

import faulty
import maxent

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import soak


@pytest.mark.parametrize("steps", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_true_step_is_lost_and_no_false_one_stored(steps):
    found = soak.soak(steps, seed=1)
    assert found["environment_steps"] == steps and found["true_transitions"] > 0.9 * steps
    assert (found["lost"], found["false"], found["of_these_untrue"]) == (0, 0, 0)
    assert not any(found["altered"].values()), found["altered"]
    assert found["faults"] == found["faults_told"] > steps / 1000 and found["kinds_of_faults_told"] > 10
    assert found["episodes_reported_as_they_were"] and found["rewards_of_1e30"] > 0


def test_the_comparison_sees_what_is_false(monkeypatch):
    """Without the cut where an environment failed, the ring would join two episodes."""
    monkeypatch.setattr(soak.Sound, "chance", 0.05)
    monkeypatch.setattr("maxent.replay.ring.cut", lambda ring, where: ring)
    found = soak.soak(2_000)
    assert found["false"] > 0


def test_rewards_of_1e30_are_kept_and_stop_a_training_that_they_spoil():
    """They are finite numbers; what they do to the critics is not, and that is said."""
    agent = maxent.SAC(
        faulty.HugeRewards, hidden_sizes=(8,), batch_size=4, learning_starts=20, buffer_size=100, log_every=20
    )
    with pytest.raises(maxent.TrainingFault, match="member 0 .*huge rewards|member 0 at step .* not finite") as error:
        agent.learn(100)
    assert "\n" not in str(error.value) and agent.num_timesteps <= 60
