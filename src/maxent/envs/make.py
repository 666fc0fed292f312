"""From what a user names (an id, a class, a factory, an instance) to a function that makes such environments."""

import copy
import ctypes.util
import difflib
import importlib
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.utils import EzPickle
from gymnasium.wrappers import TimeLimit

from maxent.envs import device, spaces, tasks
from maxent.envs.plain import installed, told
from maxent.errors import ConfigError
from maxent.types import Spec

if TYPE_CHECKING:
    from maxent.envs.device.env import DeviceEnv

tasks.register()
EXTRAS = {"mujoco": "mujoco", "box2d": "box2d", "swig": "box2d", "pygame": "classic", "toy_text": "classic"}
"""What Gymnasium misses → the extra of this library that brings it."""


class Factory:
    """Makes environments, each with the same arguments; `name` is what the run folder is called after.

    `remakeable` says whether the name, the arguments and the time limit are all that is needed to make them again.

    Raises:
        ConfigError: on the first call, where there is no such environment or a package for it is missing.
    """

    def __init__(
        self,
        env: "str | gymnasium.Env | Callable[..., gymnasium.Env] | DeviceEnv",
        kwargs: Mapping[str, Any] | None = None,
        max_episode_steps: int = 0,
    ) -> None:
        if not (isinstance(env, str | gymnasium.Env) or callable(env) or _is_device_env(env)):
            raise ConfigError(f"the environment is {env!r}: it must be an id, module:Name, a class or an environment")
        self.kwargs, self.max_episode_steps = dict(kwargs or {}), max_episode_steps
        self.name = env if isinstance(env, str) else _name(env)
        self.remakeable = isinstance(env, str) or (":" in self.name and _comes_back(env))
        self._given = env
        self._device_env: DeviceEnv | None = None
        self._instance = env if isinstance(env, gymnasium.Env) else None
        if isinstance(env, gymnasium.Env):
            self._refuse_arguments()
            self.max_episode_steps = max_episode_steps or _time_limit(env)
            self._remember(env)
        self._make = self._maker(env)

    def __call__(self, render_mode: str | None = None) -> gymnasium.Env:
        """A new environment; of an instance, the instance itself at first and then others like it.

        Raises:
            ConfigError: where it cannot be made, or ends its episodes before `max_episode_steps`.
        """
        if self._instance is not None:
            given, self._instance = self._instance, None
            return self._limited(given)
        if not self.name:
            raise ConfigError(
                "the run's environment was an object that only Python can make again: maxent.load(path, env=...)"
            )
        kwargs = self.kwargs | ({"render_mode": render_mode} if render_mode else {})
        _prepare(self.name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                env = self._make(**kwargs)
        except gymnasium.error.DependencyNotInstalled as error:
            raise ConfigError(f"{self.name} needs a package that is missing: {_hint(str(error))}") from None
        except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound):
            near = difflib.get_close_matches(self.name, list(gymnasium.registry), n=3, cutoff=0.5)
            close = f": did you mean {' or '.join(near)}?" if near else "; see `maxent list envs`"
            raise ConfigError(f"there is no environment {self.name!r}{close}") from None
        except Exception as error:
            its_own = not isinstance(error, gymnasium.error.Error | ImportError | ConfigError)
            detail = " ".join((told(error) if its_own else str(error)).split())
            raise ConfigError(f"the environment {self.name} cannot be made: {detail}") from (error if its_own else None)
        if not isinstance(env, gymnasium.Env):
            raise ConfigError(f"{self.name} gives a {type(env).__name__}: it must give a gymnasium.Env")
        return self._limited(env)

    def on_device(self) -> "DeviceEnv | None":
        """The `DeviceEnv` that was given or named, None where it is none."""
        if self._device_env is not None or not device.on_device(self.name):
            return self._device_env
        from maxent.envs.device import env

        return env.make(self.name, self.kwargs, self.max_episode_steps)

    def spec(self) -> Spec:
        """What its environments show and take."""
        written_in_jax = self.on_device()
        if written_in_jax is not None:
            return written_in_jax.spec
        env = self()
        try:
            return spaces.spec_of(env.observation_space, env.action_space)
        finally:
            env.close()

    def __reduce__(self) -> Any:
        """How it is sent to another process: by what it was made of, and by what is registered here under its id."""
        if isinstance(self._given, gymnasium.Env):
            raise TypeError("an environment that was made here stays here")
        return _received, (gymnasium.registry.get(self.name), self._given, self.kwargs, self.max_episode_steps)

    def _refuse_arguments(self) -> None:
        if self.kwargs:
            raise ConfigError(f"{self.name} is made, and takes no arguments: drop {', '.join(self.kwargs)}")

    def _remember(self, env: gymnasium.Env) -> None:
        """How an instance is made again, where its specification and its time limit tell everything."""
        spec = _spec(env)
        if spec is None:
            return
        kwargs = {name: value for name, value in spec.kwargs.items() if (name, value) != ("render_mode", None)}
        plain = all(isinstance(value, bool | int | float | str) for value in kwargs.values())
        bare = env.spec is not None and not env.spec.additional_wrappers
        registered = gymnasium.registry.get(spec.id)
        limited = self.max_episode_steps or registered is None or not registered.max_episode_steps
        self.kwargs, self.remakeable = kwargs if plain else {}, bool(plain and bare and limited)

    def _maker(self, env: Any) -> Callable[..., gymnasium.Env]:
        if isinstance(env, gymnasium.Env):
            return self._copier(env)
        if isinstance(env, str):
            found = _from_module(env)
            if found is None:
                limit = self.max_episode_steps or None
                return partial(self._by_id, max_episode_steps=limit, disable_env_checker=True)
            _refuse_what_makes_none(env, found)
            env = found
        if _is_device_env(env):
            self._refuse_arguments()
            self._device_env = env._replace(time_limit=self.max_episode_steps or env.time_limit)
            return self._by_id
        return env

    def _by_id(self, **kwargs: Any) -> gymnasium.Env:
        """What Gymnasium knows by the name, or, of an environment on the device, its twin on the host."""
        written_in_jax = self.on_device()
        if written_in_jax is None:
            return gymnasium.make(self.name, **kwargs)
        if not written_in_jax.twin:
            raise ConfigError(f"{self.name} runs on the device alone: it has no twin on the host that could be shown")
        return gymnasium.make(written_in_jax.twin, **kwargs | {"max_episode_steps": written_in_jax.time_limit or -1})

    def _limited(self, env: gymnasium.Env) -> gymnasium.Env:
        """With the time limit that was asked for, where it has another one."""
        own = _time_limit(env)
        if self.max_episode_steps in (0, own):
            return env
        if 0 < own < self.max_episode_steps:
            raise ConfigError(
                f"train.max_episode_steps is {self.max_episode_steps}, and {self.name} was made with a time limit of "
                f"{own}: make it with the other one, or pass its id"
            )
        return TimeLimit(env, self.max_episode_steps)

    def _copier(self, env: gymnasium.Env) -> Callable[..., gymnasium.Env]:
        """What makes more of an instance: copies, within which what `gymnasium.make` made is made anew.

        A copy of that would share what it has outside of Python, as a physics engine, or lack some of its arguments.
        Wrappers of the user's own may have changed it, though: within those it is copied too, where it can be.
        """
        spec, base = _spec(env), env.unwrapped
        changed = any(not type(wrapper).__module__.startswith("gymnasium.") for wrapper in _wrappers(env))
        renewed = spec if isinstance(base, EzPickle) or not changed else None

        def another(render_mode: str | None = None, **_: Any) -> gymnasium.Env:
            drawn: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
            anew = {} if renewed is None else {id(base): gymnasium.make(renewed, **drawn).unwrapped}
            try:
                return copy.deepcopy(env, anew)
            except Exception as error:
                raise ConfigError(
                    f"a second {self.name} is needed and this one cannot be copied ({error}): pass its class instead"
                ) from None

        return another


def _spec(env: gymnasium.Env) -> EnvSpec | None:
    """What `gymnasium.make` made it from, wrappers aside; None where nothing tells."""
    spec = env.unwrapped.spec
    if not isinstance(spec, EnvSpec) or spec.entry_point is None:
        return None
    try:
        entry = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (ImportError, AttributeError):
        return None
    another = isinstance(entry, type) and entry is not type(env.unwrapped)
    return None if another else spec


def _wrappers(env: gymnasium.Env) -> Iterator[gymnasium.Wrapper]:
    """From the outermost one inwards."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env


def _time_limit(env: gymnasium.Env) -> int:
    """The steps after which its wrappers truncate an episode, 0 where they do not; its specification may differ."""
    limits = [wrapper._max_episode_steps for wrapper in _wrappers(env) if isinstance(wrapper, TimeLimit)]
    return min(limits, default=0)


def _is_device_env(env: Any) -> bool:
    """Whether it is a `DeviceEnv`; whoever made one has imported its module, and JAX with it."""
    module = sys.modules.get("maxent.envs.device.env")
    return module is not None and isinstance(env, module.DeviceEnv)


def _comes_back(env: Any) -> bool:
    """Whether what was given can be made again by its name."""
    return not _is_device_env(env) and _makes_environments(env, sys.modules.get(env.__module__))


def _received(spec: EnvSpec | None, *arguments: Any) -> Factory:
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return Factory(*arguments)


def _name(env: Any) -> str:
    """The id, or `module:Name` where that can be imported again."""
    if isinstance(env, gymnasium.Env):
        spec = _spec(env)
        return type(env.unwrapped).__name__ if spec is None else spec.id
    name = getattr(env, "__qualname__", type(env).__qualname__)
    return f"{env.__module__}:{name}" if name.isidentifier() else name.rpartition(".")[2].strip("<>")


def _from_module(env: str) -> Callable[..., gymnasium.Env] | None:
    """The class or factory that `module:Name` names; None for a registered id, whose module is imported."""
    module, _, name = env.partition(":")
    if not name:
        return None
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigError(f"cannot import {module!r} for the environment {env!r}: {told(error)}") from error
    if hasattr(found, name):
        return getattr(found, name)
    if name in gymnasium.registry:
        return None
    known = [n for n in vars(found) if not n.startswith("_")]
    near = difflib.get_close_matches(name, known, n=3)
    close = f": did you mean {' or '.join(near)}?" if near else ""
    raise ConfigError(f"the module {module!r} has no {name!r} and registers no such id{close}")


def _refuse_what_makes_none(name: str, found: Any) -> None:
    """A ConfigError where a name, which may stand in a stranger's run folder, is of no environments."""
    if not callable(found) and not _is_device_env(found):
        raise ConfigError(f"{name} is {found!r}: it must be a gymnasium.Env, or a function that makes one")
    if not _makes_environments(found, sys.modules[name.partition(":")[0]]):
        raise ConfigError(f"{name} belongs to an installed package: call it in a function or a class of your own")


def _makes_environments(found: Any, module: types.ModuleType | None) -> bool:
    """Whether what a module names is a class of environments, a `DeviceEnv`, or a function of the user's own.

    A function of the standard library or of an installed package can do anything with its arguments.
    """
    if _is_device_env(found) or (isinstance(found, type) and issubclass(found, gymnasium.Env)):
        return True
    code = getattr(getattr(found, "__func__", found), "__code__", None)
    if code is not None:
        return not installed(code.co_filename)
    if isinstance(found, types.BuiltinFunctionType):
        return False
    module = sys.modules.get(found.__module__) if isinstance(found, type) else module
    file = getattr(module, "__file__", None)
    return not installed(file) if file else getattr(module, "__name__", "") == "__main__"


def _hint(message: str) -> str:
    for word, extra in EXTRAS.items():
        if word in message.lower():
            return f'install it with: pip install "maxent-rl[{extra}]"'
    return " ".join(message.split())


def has_screen() -> bool:
    """Whether a window could be shown; elsewhere than on Linux there is always one."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _prepare(name: str) -> None:
    """Before MuJoCo or Pygame is imported: choose what draws without a screen, and keep MuJoCo's log file away."""
    if not has_screen():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # Pygame's, which looks for a screen aloud
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and "MUJOCO_GL" not in os.environ:
        for renderer, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
            if ctypes.util.find_library(library):
                os.environ["MUJOCO_GL"] = renderer
                break
    entry = gymnasium.registry.get(name)
    if "mujoco" in sys.modules or (entry is not None and "mujoco" in str(entry.entry_point)):
        try:
            mujoco = importlib.import_module("mujoco")
        except ImportError:
            return
        mujoco.set_mju_user_warning(lambda message: None)
