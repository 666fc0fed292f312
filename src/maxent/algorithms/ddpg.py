"""Deep Deterministic Policy Gradient, DDPG (Lillicrap et al. 2015, arXiv 1509.02971).

With one critic Q, a policy a = π(s) and slow copies Q̄ and π̄ of both,

    critic            J_Q(θ) = E[ ½ (Q(s, a) - y)² ],   y = r + γ Q̄(s', π̄(s'))                      (eqs. 4, 5)
    policy            J_π(φ) = -E[ Q(s, π(s)) ],   ∇J_π = -E[ ∇_a Q(s, a) ∇_φ π(s) ]                (eq. 6)
    targets           Q̄ ← (1 - τ) Q̄ + τ Q,   π̄ ← (1 - τ) π̄ + τ π
    exploration       a = π(s) + n                                                                  (eq. 7)

This is TD3's update with one critic, no delay and no noise on the targets' actions, which are `DDPGConfig`'s defaults.

Differs from the paper:
  - Noise is Gaussian and independent from step to step. The paper's is an Ornstein-Uhlenbeck process,
    n ← (1 - θ) n + σ N(0, 1): `noise_reversion = 0.15` (θ) and `exploration_noise = 0.2` (σ).
  - Its settings as re-tuned since, among others by TD3's authors, with far higher returns: step sizes of 1e-3 for both
    networks (1e-4 and 1e-3), τ of 0.005 (0.001), batches of 256 (64), 256 and 256 units (400 and 300), no weight decay
    of the critic (0.01), no batch normalisation, 10,000 random actions first.
  - The critic takes the action with the observation, not in its second layer; the last layers start as all others do,
    not within 0.003 of 0.
  - What TD3's file lists.
"""

from maxent.algorithms.td3 import TD3

DDPG = TD3._replace(name="ddpg")
