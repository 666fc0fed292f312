"""Settings: what is wrong is said in one line, and what is written is read again."""

import math
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxent import registry
from maxent.config import ReplayConfig, SACConfig, TrainConfig
from maxent.errors import ConfigError, MaxentError
from maxent.run import folder
from maxent.settings import build, check, numbers, parse_value, read_toml
from maxent.settings import without_numbers as blanked

CONFIGS = [TrainConfig("Pendulum-v1"), ReplayConfig(), *(e.config() for e in registry.ALGORITHMS.values())]
configs = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)

REFUSED = {
    "unknown key": ({"learning_rat": 1e-3}, ["learning_rat", "did you mean", "learning_rate"]),
    "unlike any": ({"qqqq": 1}, ["qqqq", "gamma"]),
    "negative": ({"learning_rate": -1e-3}, ["learning_rate", "-0.001", "at least 0"]),
    "too large": ({"gamma": 1.5}, ["gamma", "1.5", "at most 1"]),
    "open end": ({"utd": 0.0}, ["utd", "above 0"]),
    "nan": ({"tau": math.nan}, ["tau", "nan", "finite"]),
    "infinite": ({"utd": math.inf}, ["utd", "inf", "finite"]),
    "text for a number": ({"tau": "much"}, ["tau", "'much'", "a number"]),
    "text for a number or auto": ({"temperature": "warm"}, ["temperature", "'warm'", "a number or 'auto'"]),
    "truth for a number": ({"batch_size": True}, ["batch_size", "True", "a whole number"]),
    "truth for a fraction": ({"tau": True}, ["tau", "True", "a number"]),
    "fraction for a whole number": ({"batch_size": 2.5}, ["batch_size", "2.5", "a whole number"]),
    "number for a truth": ({"layer_norm": 1}, ["layer_norm", "1", "true or false"]),
    "one of a few": ({"activation": "rleu"}, ["activation", "'rleu'", "'relu'", "'tanh'"]),
    "a list": ({"hidden_sizes": 64}, ["hidden_sizes", "64", "a list of whole numbers"]),
    "in a list": ({"hidden_sizes": [64, 1.5]}, ["hidden_sizes", "1.5"]),
    "no units": ({"hidden_sizes": [64, 0]}, ["hidden_sizes", "one unit"]),
    "batch and replay": ({"batch_size": 256, "buffer_size": 100}, ["batch_size", "256", "100"]),
    "crossed bounds": ({"log_std_min": 3.0}, ["log_std_min", "3", "log_std_max"]),
    "crossed by nan": ({"log_std_max": math.nan}, ["log_std"]),
    "no critics": ({"critics": 0}, ["critics", "at least 1"]),
}


@pytest.mark.parametrize(("values", "parts"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_setting_is_refused_in_one_line(values, parts):
    with pytest.raises(ConfigError) as error:
        build(SACConfig, values, "file.toml [sac]")
    message = str(error.value)
    assert "\n" not in message and message.startswith("file.toml [sac]")
    assert all(part in message for part in parts), message
    assert isinstance(error.value, MaxentError) and isinstance(error.value, ValueError)


@pytest.mark.parametrize("name", ["steps", "seeds", "envs", "log_every", "eval_episodes", "keep_checkpoints"])
def test_a_run_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0: it must be at least 1"):
        build(TrainConfig, {"env": "Pendulum-v1", name: 0}, "train")


@configs
def test_defaults_are_in_range(config):
    check(config, "defaults")
    assert build(type(config), asdict(config), "defaults") == config


@configs
def test_every_bound_is_refused_beyond_and_taken_at(config):
    """Whatever the config: just beyond its range every number is refused, by name."""
    tried = 0
    for f in fields(config):
        low, above, high = (f.metadata.get(k, math.nan) for k in ("low", "above", "high"))
        beyond = [low - 1, above, high + 1]
        for value in [v for v in beyond if math.isfinite(v)]:
            tried += 1
            with pytest.raises(ConfigError, match=rf"here\.{f.name} is"):
                check(replace(config, **{f.name: value}), "here")
    assert tried > 3


def test_the_nearest_setting_is_suggested():
    with pytest.raises(ConfigError, match="did you mean eval_every"):
        build(TrainConfig, {"env": "x", "eval_evry": 3}, "train")


def test_values_become_what_the_field_declares():
    values = {"learning_rate": 1, "hidden_sizes": [64, 32], "temperature": 0, "target_entropy": "auto"}
    config = build(SACConfig, values, "x")
    assert (config.learning_rate, config.hidden_sizes, config.temperature) == (1.0, (64, 32), 0.0)
    assert type(config.learning_rate) is float and type(config.temperature) is float and config.target_entropy == "auto"
    hash(config)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("3", 3), ("-0.5", -0.5), ("1e-3", 1e-3), ("1_000", 1000), ("[1, 2]", [1, 2]), ('"3"', "3"),
        ("auto", "auto"), ("", ""), ("a b", "a b"), ("[1,", "[1,"), ("True", True), ("False", False), ("TRUE", "TRUE"),
    ],
)  # fmt: skip
def test_words_of_the_command_line(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


# --- numbers ------------------------------------------------------------------------------------------------


def test_numbers_are_the_swept_settings_that_have_a_value():
    found = numbers(SACConfig(temperature=0.3, learning_rate=1e-3))
    assert found["temperature"] == 0.3 and found["learning_rate"] == 1e-3 and found["gamma"] == 0.99
    assert "target_entropy" not in found and "batch_size" not in found and "utd" not in found


@configs
def test_without_numbers_every_swept_number_is_nan_and_nothing_else_changed(config):
    blank = blanked(config)
    for f in fields(config):
        before, after = getattr(config, f.name), getattr(blank, f.name)
        assert math.isnan(after) if f.name in numbers(config) else after == before
    assert set(numbers(config)) <= {f.name for f in fields(config) if f.metadata.get("swept")}


# --- files --------------------------------------------------------------------------------------------------

finite = st.floats(0, 1)
sac = st.builds(
    SACConfig,
    gamma=finite, tau=finite, learning_rate=finite, temperature=finite | st.just("auto"), utd=st.floats(0.01, 100),
    target_entropy=st.floats(-1e6, 1e6) | st.just("auto"),
    hidden_sizes=st.lists(st.integers(1, 999), max_size=4).map(tuple), layer_norm=st.booleans(),
    activation=st.sampled_from(["relu", "tanh", "silu"]),
    n_step=st.integers(1, 9), max_grad_norm=st.floats(0, 1e9),
)  # fmt: skip
train = st.builds(
    TrainConfig,
    env=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=9), seed=st.integers(0, 2**31 - 10),
    seeds=st.integers(1, 9), steps=st.integers(1, 2**32 - 1), save_replay=st.booleans(),
)  # fmt: skip
scalars = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
kwargs = st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=3)


@settings(deadline=None)
@given(train, sac, kwargs)
def test_a_run_folder_gives_back_every_setting(tmp_path_factory, run, algorithm, env_kwargs):
    path = tmp_path_factory.mktemp("run")
    folder.write_config(path, run, algorithm, env_kwargs)
    assert folder.read(path) == (run, algorithm, env_kwargs)


@pytest.mark.parametrize("name", registry.ALGORITHMS)
def test_every_algorithms_defaults_survive_a_file(name, tmp_path):
    run, algorithm = TrainConfig("Pendulum-v1", algo=name), registry.entry(name).config()
    folder.create(tmp_path / "run", run, algorithm, {"g": 9.8})
    assert folder.read(tmp_path / "run") == (run, algorithm, {"g": 9.8})


BROKEN = {
    "no toml": ("train = [", ["not TOML"]),
    "not utf-8": (b"\xff\xfe", ["not TOML"]),
    "no env": ("[train]\nsteps = 3", ["env"]),
    "no table": ("train = 3", ["train"]),
    "no table of settings": ('sac = 3\n[train]\nenv = "x"', ["sac"]),
    "no table of arguments": ('env = 3\n[train]\nenv = "x"', ["env"]),
    "unknown table": ('[train]\nenv = "x"\n[td3]\ntau = 1', ["td3", "[sac]"]),
    "unknown algorithm": ('[train]\nenv = "x"\nalgo = "sca"', ["sca", "sac"]),
    "unknown key": ('[train]\nenv = "x"\n[sac]\ntua = 1', ["tua", "tau"]),
}


@pytest.mark.parametrize(("content", "parts"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_in_one_line(tmp_path, content, parts):
    (tmp_path / folder.CONFIG).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as error:
        folder.read(tmp_path)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


def test_a_folder_that_is_no_run_and_a_file_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match="is no run"):
        folder.read(tmp_path)
    with pytest.raises(ConfigError, match="cannot read the config file"):
        read_toml(tmp_path / "none.toml")


def test_settings_do_not_import_jax():
    code = "import sys, maxent.config; print(*{name.split('.')[0] for name in sys.modules})"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "maxent" in imported and not {"jax", "jaxlib"} & set(imported)
