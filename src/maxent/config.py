"""Every number that a user may set, one class an algorithm and one for the run.

No import here needs JAX: the command's help and its errors are instant.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from maxent.settings import setting

Auto = Literal["auto"]
MOST_STEPS = 2**32 - 1
"""What JAX counts in 32 bits."""
Activation = Literal["relu", "tanh", "elu", "gelu", "silu"]
Conflict = tuple[str, str]
"""The field at fault, and what is wrong with its value: the rest of a sentence that begins with both."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """What every algorithm shares."""

    hidden_sizes: tuple[int, ...] = (256, 256)
    """Units of each hidden layer, of the policy and of the critics."""
    activation: Activation = "relu"
    """What follows each hidden layer."""
    layer_norm: bool = False
    """Layer normalisation before each activation of the critics and the policy."""
    normalize_observations: bool = False
    """Shift and scale observations by their running mean and variance."""
    learning_rate: float = setting(3e-4, low=0, swept=True)
    """Adam's step size for every network that has none of its own below."""
    learning_rate_decay_updates: int = setting(0, low=0)
    """Updates over which all step sizes fall linearly to zero; 0 keeps them constant."""
    max_grad_norm: float = setting(0.0, low=0)
    """Norm above which the gradient of one loss is cut; 0 never is."""
    gamma: float = setting(0.99, low=0, high=1, swept=True)
    """Discount of a reward one step later."""

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        if any(size < 1 for size in self.hidden_sizes):
            yield "hidden_sizes", ": every layer needs at least one unit"


@dataclass(frozen=True)
class ReplayConfig(AlgorithmConfig):
    """What every algorithm that learns from a replay shares."""

    buffer_size: int = setting(1_000_000, low=1)
    """Transitions the replay holds, per member, over all its environments."""
    learning_starts: int = setting(1000, low=0)
    """Environment steps with uniformly random actions before the first update."""
    batch_size: int = setting(256, low=1)
    """Transitions in one update."""
    utd: float = setting(1.0, above=0, high=1e6)
    """Gradient updates per environment step, above or below one, whatever the number of environments."""
    n_step: int = setting(1, low=1)
    """Rewards summed before bootstrapping; above one the targets are slightly off-policy."""

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        yield from super().conflicts()
        if self.batch_size > self.buffer_size:
            yield "batch_size", f" and buffer_size {self.buffer_size}: a batch must fit in the replay"


@dataclass(frozen=True)
class ActorCriticConfig(ReplayConfig):
    """What the algorithms with a policy, critics and target critics share."""

    actor_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the policy; "auto" follows learning_rate."""
    critic_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the critics; "auto" follows learning_rate."""
    tau: float = setting(0.005, low=0, high=1, swept=True)
    """Share of the learned network that moves into its target network at each update."""
    critics: int = setting(2, low=1, high=1024)
    """Independent critics; the smallest of their values is believed."""


@dataclass(frozen=True)
class SquashedGaussianConfig(ActorCriticConfig):
    """What the forms of Soft Actor-Critic with a tanh-squashed Gaussian policy share."""

    log_std_min: float = setting(-20.0, low=-80, high=80)
    """Lower bound of the logarithm of the policy's standard deviation, before squashing."""
    log_std_max: float = setting(2.0, low=-80, high=80)
    """Upper bound of the same."""

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        yield from super().conflicts()
        if not self.log_std_min < self.log_std_max:
            yield "log_std_min", f": it must be below log_std_max, {self.log_std_max}"


@dataclass(frozen=True)
class SACConfig(SquashedGaussianConfig):
    """Soft Actor-Critic with twin critics and automatic temperature (arXiv 1812.05905)."""

    temperature_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the logarithm of the temperature; "auto" follows learning_rate."""
    temperature: float | Auto = setting("auto", low=0, swept=True)
    """Weight of the entropy against the reward, 0 for none; "auto" learns it to meet target_entropy."""
    initial_temperature: float = setting(1.0, above=0, swept=True)
    """Where a learned temperature starts."""
    target_entropy: float | Auto = setting("auto", swept=True)
    """Entropy, in nats over the action box [-1, 1]^d, that a learned temperature aims at; "auto" is -d."""
    state_dependent_std: bool = True
    """Whether the policy's standard deviation depends on the observation; without, one learned vector serves all."""


@dataclass(frozen=True)
class SACV1Config(SquashedGaussianConfig):
    """Soft Actor-Critic with a value network and a reward scale (arXiv 1801.01290)."""

    value_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the value network; "auto" follows learning_rate."""
    reward_scale: float = setting(5.0, above=0, swept=True)
    """What rewards are multiplied by; the entropy's weight is 1, so this is the inverse of a temperature."""
    target_update_interval: int = setting(1, low=1)
    """Updates for each move of the target network; 1000, with tau = 1, is the paper's hard variant."""
    regularization: float = setting(0.0, low=0, swept=True)
    """Weight in the policy's loss of ½ (μ² + log² σ), averaged over the action; the authors' code has 0.001."""


@dataclass(frozen=True)
class SACDiscreteConfig(ActorCriticConfig):
    """Soft Actor-Critic for discrete actions, with exact expectations over them (arXiv 1910.07207)."""

    temperature_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the logarithm of the temperature; "auto" follows learning_rate."""
    temperature: float | Auto = setting("auto", low=0, swept=True)
    """Weight of the entropy against the reward, 0 for none; "auto" learns it to meet target_entropy_ratio."""
    initial_temperature: float = setting(1.0, above=0, swept=True)
    """Where a learned temperature starts."""
    target_entropy_ratio: float = setting(0.6, low=0, high=1, swept=True)
    """Entropy that a learned temperature aims at, as a share of that of equally likely actions."""
    entropy_in_target: bool = True
    """Whether the critics count the entropy of later steps as a reward; without, only the policy is paid for it."""
    average_critics: bool = False
    """Believe the mean of the critics' values instead of the smallest."""
    q_clip: float = setting(0.0, low=0)
    """Distance from its target critic beyond which a critic gains nothing by moving on; 0 sets no bound."""


@dataclass(frozen=True)
class SQLConfig(ReplayConfig):
    """Soft Q-learning with a sampler trained by Stein's method (arXiv 1702.08165)."""

    sampler_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the sampler; "auto" follows learning_rate."""
    critic_learning_rate: float | Auto = setting("auto", low=0, swept=True)
    """Step size of the critics; "auto" follows learning_rate."""
    learning_rate_steps: tuple[int, ...] = ()
    """Updates at each of which all step sizes are multiplied by learning_rate_factor."""
    learning_rate_factor: float = setting(1.0, above=0)
    """What they are multiplied by."""
    temperature: float = setting(0.1, above=0, swept=True)
    """Weight of the entropy against the reward; a reward scale c is a temperature of 1/c."""
    critics: int = setting(1, low=1, high=1024)
    """Independent critics; the smallest of their values is believed."""
    tau: float = setting(1.0, low=0, high=1, swept=True)
    """Share of the learned critics that moves into the target critics at each of their updates; 1 copies."""
    target_update_interval: int = setting(1000, low=1)
    """Updates from one update of the target critics to the next."""
    value_particles: int = setting(16, low=1)
    """Actions from which the soft value of a state is estimated."""
    policy_proposal_after: int | Literal["never"] = setting("never", low=0)
    """Updates after which these actions are the sampler's, weighted by its density, in place of uniform ones."""
    kernel_particles: int = setting(32, low=3)
    """Actions of a state in one update of the sampler."""
    kernel_update_ratio: float = setting(0.5, above=0, high=1)
    """Share of them that is updated; the others stay where they are and say where to."""
    kernel_scale: float = setting(0.5, above=0)
    """Width of the kernel: h = kernel_scale · (the median squared distance of M particles) / log(M + 1)."""
    kernel_space: Literal["pre_tanh", "action"] = "pre_tanh"
    """Where particles are compared and moved: before squashing, which is exact, or after it, as the published code."""
    greedy_particles: int = setting(32, low=1)
    """Sampled actions of which evaluation takes the one with the highest value."""

    @property
    def updated_particles(self) -> int:
        """How many of the kernel's particles are updated."""
        return round(self.kernel_particles * self.kernel_update_ratio)

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        yield from super().conflicts()
        if not 1 <= self.updated_particles <= self.kernel_particles - 2:
            yield (
                "kernel_update_ratio",
                f" and kernel_particles {self.kernel_particles}: it must leave one to update, and two as they are",
            )
        if bool(self.learning_rate_steps) != (self.learning_rate_factor != 1):
            yield "learning_rate_factor", f" and learning_rate_steps {self.learning_rate_steps}: one needs the other"


@dataclass(frozen=True)
class TD3Config(ActorCriticConfig):
    """Twin Delayed Deep Deterministic policy gradient (arXiv 1802.09477)."""

    learning_starts: int = setting(10_000, low=0)
    exploration_noise: float = setting(0.1, low=0, swept=True)
    """Standard deviation, in the box [-1, 1]^d, of the noise that each step brings to the actions taken."""
    noise_reversion: float = setting(1.0, above=0, high=1)
    """Share of the noise forgotten at each step: 1 leaves none, less makes it an Ornstein-Uhlenbeck process."""
    policy_delay: int = setting(2, low=1)
    """Updates of the critics for each of the policy."""
    target_update_interval: int | Auto = setting("auto", low=1)
    """Updates of the critics for each move of the target networks; "auto" follows policy_delay."""
    target_policy: bool = True
    """Whether the targets' actions are those of a target network of the policy; else they are the policy's own."""
    target_noise: float = setting(0.2, low=0, swept=True)
    """Standard deviation, in the box [-1, 1]^d, of the noise on the targets' actions."""
    target_noise_clip: float = setting(0.5, low=0)
    """Where that noise is cut, on either side; 0 leaves none of it."""
    pessimistic_policy: bool = False
    """Whether the policy follows the smallest of the critics' values; else it follows the first critic's."""

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        yield from super().conflicts()
        if self.target_noise > 0 and not self.target_noise_clip:
            yield "target_noise", " and target_noise_clip 0: nothing would be left of it"


@dataclass(frozen=True)
class DDPGConfig(TD3Config):
    """Deep Deterministic Policy Gradient (arXiv 1509.02971): one critic, no delay, no smoothing."""

    learning_rate: float = setting(1e-3, low=0, swept=True)
    critics: int = setting(1, low=1, high=1024)
    policy_delay: int = setting(1, low=1)
    target_noise: float = setting(0.0, low=0, swept=True)
    target_noise_clip: float = setting(0.0, low=0)


@dataclass(frozen=True)
class SACDeterministicConfig(TD3Config):
    """The deterministic ablation of Soft Actor-Critic (arXiv 1801.01290, section 5.2)."""

    learning_starts: int = setting(1000, low=0)
    tau: float = setting(1.0, low=0, high=1, swept=True)
    policy_delay: int = setting(1, low=1)
    target_update_interval: int | Auto = setting(1000, low=1)
    target_policy: bool = False
    target_noise: float = setting(0.0, low=0, swept=True)
    target_noise_clip: float = setting(0.0, low=0)
    pessimistic_policy: bool = True


@dataclass(frozen=True)
class PPOConfig(AlgorithmConfig):
    """Proximal Policy Optimization (arXiv 1707.06347)."""

    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of each hidden layer, of the policy and of the value network."""
    activation: Activation = "tanh"
    """What follows each hidden layer."""
    normalize_observations: bool = True
    """Shift and scale observations by their running mean and variance."""
    max_grad_norm: float = setting(0.5, low=0)
    """Norm above which the gradient of the objective is cut; 0 never is."""
    rollout_length: int = setting(2048, low=2)
    """Steps of each environment from which one update learns; with many environments fewer will do."""
    batch_size: int = setting(64, low=2)
    """Steps in one minibatch, at most the whole rollout; an epoch leaves out what is no whole minibatch."""
    epochs: int = setting(10, low=1)
    """Times that an update goes over its rollout."""
    gae_lambda: float = setting(0.95, low=0, high=1, swept=True)
    """Weight of longer sums in the advantages: 0 looks one step ahead, 1 to the episode's end."""
    clip_range: float = setting(0.2, above=0, swept=True)
    """How far the ratio of new to old probability may move from 1 before it stops to pay."""
    value_coefficient: float = setting(0.5, low=0, swept=True)
    """Weight of the value's loss."""
    entropy_coefficient: float = setting(0.0, low=0, swept=True)
    """Weight of the policy's entropy."""
    initial_log_std: float = setting(-0.7)
    """Logarithm of the standard deviation at the start, of a box [-1, 1]; numbers only."""


@dataclass(frozen=True)
class TrainConfig:
    """What a run is, apart from the algorithm's own numbers."""

    env: str
    """Gymnasium id, module:Name of your own class, factory or registered id, or jax/… for one on the device."""
    algo: str = "sac"
    """Algorithm; see `maxent list algorithms`."""
    steps: int = setting(100_000, low=1, high=MOST_STEPS)
    """Environment steps of each member, over all its environments."""
    seed: int = setting(0, low=0, high=2**31 - 1)
    """Seed of the first member; everything random follows from it."""
    seeds: int = setting(1, low=1, high=2**16)
    """Members, trained side by side in one process with the seeds seed, seed + 1, …"""
    envs: int = setting(1, low=1, high=2**20)
    """Environments of each member."""
    max_episode_steps: int = setting(0, low=0, high=2**31 - 1)
    """Time limit of an episode; 0 keeps the environment's own."""
    sweep: tuple[str, ...] = ()
    """FIELD=v1,v2,…: members with each of these values of the algorithm's setting, for every seed; several give their
    product."""
    device: str = "auto"
    """What learns: auto, cpu, gpu or tpu; gpu:4 shares the members among four, cpu:4 among four parts of the CPU."""
    eval_every: int = setting(10_000, low=0)
    """Steps between evaluations with the mean action; 0 evaluates only at the end."""
    eval_episodes: int = setting(10, low=1, high=2**20)
    """Episodes of one evaluation."""
    log_every: int = setting(1000, low=1)
    """Steps between two rows of progress.csv."""
    checkpoint_every: int = setting(50_000, low=0)
    """Steps between checkpoints; 0 saves only at the end."""
    keep_checkpoints: int = setting(2, low=1)
    """Newest checkpoints that are kept, beside the best one."""
    save_replay: bool = True
    """Whether checkpoints hold the replay; without, a resumed run fills a new one before it learns on."""
    on_fault: Literal["stop", "rollback"] = "stop"
    """What to do where numbers are not finite, the temperature dies or explodes, or values diverge: stop, or go back to
    the last checkpoint and on with other random numbers."""
    env_restarts: int = setting(0, low=0)
    """Times that environments which raise or break their description are made anew; their episode is cut."""
    env_workers: int = setting(0, low=0, high=4096)
    """Processes that step the environments; 0 steps them in this one, which is faster for cheap ones."""
    step_timeout: float = setting(0.0, low=0)
    """Seconds after which a step (or reset) in a worker process is taken for one that hangs; 0 waits for ever."""
    video: bool = False
    """Record a video of the final policy."""

    def conflicts(self) -> Iterator[Conflict]:
        """What is wrong between this config's settings."""
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) % self.log_every:
                yield name, f" and log_every {self.log_every}: it must be a multiple, since both happen at a report"
        if self.seed + self.seeds > 2**31:
            yield "seeds", f" and seed {self.seed}: the last member's seed must be at most {2**31 - 1}"
        if self.step_timeout and not self.env_workers:
            yield "step_timeout", " and env_workers 0: only a process of its own can be ended when it hangs"
