"""The deterministic ablation of Soft Actor-Critic (Haarnoja et al. 2018, arXiv 1801.01290, section 5.2).

What is left of SAC without entropy and without sampling: to be compared with `sac_v1.py` and `sac.py`, it shows what a
stochastic policy is good for. The paper gives no equations for it, but says how it differs from DDPG: two critics, hard
updates of their targets, no target network of the policy, and fixed noise for exploration. Hence

    critics           J_Q(θ) = E[ Σ_i ½ (Q_i(s, a) - y)² ],   y = r + γ min_i Q̄_i(s', π(s'))
    policy            J_π(φ) = -E[ min_i Q_i(s, π(s)) ],   π(s) = tanh(μ(s))
    target critics    Q̄_i ← Q_i in every 1000th update
    exploration       a = clip(π(s) + n, -1, 1),   n ~ N(0, σ²)

the limit of SAC's equations as temperature and standard deviation go to 0. V(s) = min_i Q_i(s, π(s)) needs no network
of its own then, and has none. This is TD3's update with the defaults of `SACDeterministicConfig`.

Differs from the paper:
  - σ is not given there; it is 0.1 here, as in TD3.
  - Updates per step are not given there either. It has one here; the hard variant of SAC in the paper's appendix has
    four (`utd = 4`).
  - A soft target, as SAC has, is two settings away: `tau = 0.005` and `target_update_interval = 1`.
  - What TD3's file lists.
"""

from maxent.algorithms.td3 import TD3

SAC_DETERMINISTIC = TD3._replace(name="sac_deterministic")
