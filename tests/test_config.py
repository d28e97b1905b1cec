"""Settings files and options: no surprises in YAML, typed values, errors that name their place."""

import json
from dataclasses import dataclass

import pytest

from experiments.config import AgentConfig, CompareConfig, DataConfig, ExperimentConfig
from experiments.options import agent_options, options_of
from experiments.settings import build, read_tokens, resolve
from experiments.yaml_file import Document, parse_value, read_yaml
from market.errors import SettingError

NEIGHBOURS = list(zip("abcd", "bcde", strict=True))
OPTIONS = list(options_of(ExperimentConfig))


def settings(tmp_path, text="", *argv):
    """An ExperimentConfig as the command line builds it, but for the agent's own block."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    values = resolve(read_yaml(path), read_tokens(argv).pairs, OPTIONS)
    return build(ExperimentConfig, values)


def refusal(tmp_path, text="", *argv):
    with pytest.raises(SettingError) as caught:
        settings(tmp_path, text, *argv)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("010", 10),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2012-12-31", "2012-12-31"),
        ("NO", "NO"),
        ("on", "on"),
        ("TRUE", "TRUE"),
        ("true", True),
        ("null", None),
        ("'5'", "5"),
        ("-.inf", float("-inf")),
        ("[ON, NO, TRUE]", ["ON", "NO", "TRUE"]),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
        (json.dumps({"\U0001f600": "\U0001f600"}), {"\U0001f600": "\U0001f600"}),  # as two halves
    ],
)
def test_scalars_mean_what_they_look_like(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_a_file_and_options_are_typed_and_the_options_win(tmp_path):
    text = (
        "agent: sac\nseeds: [3, 4]\ntask: {cost: 0.002, reward: cvar}\ndata:\n  start: 2005-01-03\n"
    )
    config = settings(tmp_path, text, "--task.cost.buy=3e-4", "--data.assets", "gold, cash")
    assert config.agent.name == "sac"
    assert config.seed_list == [3, 4]
    assert (config.task.cost.buy, config.task.reward) == (3e-4, "cvar")
    assert (config.data.start, config.data.assets) == ("2005-01-03", ["gold", "cash"])


def test_forms_an_option_can_take(tmp_path):
    config = settings(
        tmp_path,
        "",
        "--task.decision-lag=1e1",
        "--seeds",
        "[7]",
        "--experiment",
        "007",
        "--data.options.path",
        "a.csv",
        "--data.options.max_gap=3",
        "--task.constraints",
        "max_weight(0.4), group_cap({'a': 0.3, 'b': 1.0})",
        "--data",
        "files",
    )
    assert config.task.decision_lag == 10
    assert config.seed_list == [7]
    assert config.experiment == "007"
    assert config.data.source == "files"
    assert config.data.options == {"path": "a.csv", "max_gap": 3}
    assert config.task.constraints == ["max_weight(0.4)", "group_cap({'a': 0.3, 'b': 1.0})"]


def test_entries_of_a_mapping_add_up(tmp_path):
    text = "data: {options: {path: a.csv, max_gap: 1}}\n"
    config = settings(tmp_path, text, "--data.options.max_gap", "2")
    assert config.data.options == {"path": "a.csv", "max_gap": 2}
    argv = ("--data.options", "{a: 1}", "--data.options.b", "2")
    assert settings(tmp_path, text, *argv).data.options == {"a": 1, "b": 2}
    assert "a mapping" in refusal(tmp_path, "data: {options: 3}", "--data.options.b", "2")


def test_the_resolved_settings_read_back_to_the_same(tmp_path):
    import yaml

    text = "seeds: 2\ndata: {source: us_stocks, assets: ['NO', 'ON', 'true', '010']}\n"
    config = settings(tmp_path, text)
    again = settings(tmp_path, yaml.safe_dump(config.plain()))
    assert again.plain() == config.plain()
    assert again.data.assets == ["NO", "ON", "true", "010"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("experiment: a\ndata:\n  sorce: x\n", ["data.sorce", "line 3", "'data.source'"]),
        ("decision_lag: 1\n", ["'decision_lag'", "line 1", "'task.decision_lag'"]),
        ("task: {cost: {by: 0.1}}\n", ["task.cost.by", "line 1", "task.cost.buy"]),
        ("seeds: 1\ntask: {}\nseeds: 2\n", ["'seeds'", "twice", "lines 1 and 3"]),
        ("data: {assets: [ON, no, true]}\n", ["data.assets[2]", "true", "quotes", "line 1"]),
        ("task: {cost: {buy: abc}}\n", ["task.cost.buy", "a number", "'abc'"]),
        ("task: {cost: {buy: 1:30}}\n", ["task.cost.buy", "a number", "'1:30'"]),
        ("task: {fill: open}\n", ["task.fill", "'close' or 'next_open'", "'open'"]),
        ("seeds: 1.5\n", ["seeds", "a whole number", "1.5"]),
        ("experiment: 12\n", ["experiment must be text", "12", "quotes"]),
        ("task: 5\n", ["task must be a mapping", "line 1"]),
        ("- a\n", ["key: value"]),
        ("task.reward: x\n", ["'task.reward'", "line 1", "nested"]),
        ("a: b: c\n", ["line 1"]),
        ("data: !!python/object/apply:os.system ['id']\n", ["line 1", "!!python", "not allowed"]),
        ("task: {cost: {buy: -1}, decision_lag: -2}\n", ["buy", "[0, 1)", "-1", "decision_lag"]),
        ("split: {train_end: 2012-12-31}\n", ["train_end", "valid_end", "together"]),
        ("seeds: 0\n", ["seeds", "at least 1", "0"]),
        ("seeds: [-1]\n", ["seeds", "[0, 2**32)", "-1"]),
        ("seeds: [1180591620717411303424]\n", ["seeds", "[0, 2**32)"]),
        ("seeds: [1, 1]\n", ["seeds", "differ"]),
    ],
)
def test_a_bad_file_is_refused_with_key_place_and_rule(tmp_path, text, parts):
    message = refusal(tmp_path, text)
    for part in parts:
        assert part in message, message


def test_all_wrong_types_are_named_at_once(tmp_path):
    message = refusal(tmp_path, "seeds: x\ntask: {decision_lag: y}\n", "--workers", "z")
    assert all(key in message for key in ("seeds", "task.decision_lag", "workers"))


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--seds", "3"], "did you mean 'seeds'"),
        (["--seeds"], "--seeds needs a value"),
        (["--data.sorce=x"], "'data.source'"),
        (["--task.cost", "[1"], "task.cost.buy must be a number"),
        (["--data.assets", "a, {b"], "data.assets must be a list of texts"),
        (["--task.cost", "1:30"], "task.cost.buy must be a number"),
    ],
)
def test_a_bad_option_is_refused(tmp_path, argv, part):
    assert part in refusal(tmp_path, "", *argv)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcd", "bcde", strict=True)
        )
        + "f: [*e, *e, *e]\n",
        "a: &a [*a]\n",
        "a: " + "[" * 50_000,
        "- " * 50_000,
    ],
)
def test_bombs_are_refused(tmp_path, text):
    message = refusal(tmp_path, text)
    assert "deeper than 32" in message or "more than 10000 values" in message


def test_a_huge_a_missing_and_a_binary_file_are_refused(tmp_path):
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 1_000_001)
    with pytest.raises(SettingError, match=r"huge\.yaml: must be at most 1000000 bytes"):
        read_yaml(huge)
    with pytest.raises(SettingError, match=r"no\.yaml does not exist"):
        read_yaml(tmp_path / "no.yaml")
    with pytest.raises(SettingError, match="is a folder"):
        read_yaml(tmp_path)
    huge.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="cannot read"):
        read_yaml(huge)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    units: int = 64
    rate: float = 1e-3  # of learning
    mode: str | None = None


class _WithSettings:
    Settings = _Settings


class _WithArguments:
    def __init__(self, window: int = 5, other=None):
        pass


def test_an_agents_settings_are_options_with_their_types_and_comments():
    options = {option.key: option for option in agent_options(_WithSettings, "x")}
    assert set(options) == {"agent.units", "agent.rate", "agent.mode"}
    assert options["agent.rate"].help == "of learning"
    values = resolve(Document(), [("agent.units", "1e2")], list(options.values()))
    assert values == {"agent.units": 100}
    with pytest.raises(SettingError, match=r"agent\.units must be a whole number, got '1\.5'"):
        resolve(Document(), [("agent.units", "1.5")], list(options.values()))
    with pytest.raises(SettingError, match=r"did you mean 'agent\.units'"):
        resolve(Document(), [("agent.unit", "1")], list(options.values()))
    arguments = [(o.key, o.default) for o in agent_options(_WithArguments, "x")]
    assert arguments == [("agent.window", 5), ("agent.other", None)]


def test_compare_makes_one_experiment_an_agent():
    config = CompareConfig(agents=["ppo", {"name": "ppo", "label": "slow", "steps": 5}], seeds=[4])
    slow = config.experiments()[1]
    assert slow.agent == AgentConfig(name="ppo", label="slow", settings={"steps": 5})
    assert (slow.experiment, slow.seed_list, slow.agent.title) == ("compare", [4], "slow")
    with pytest.raises(SettingError, match="'ppo' appears twice; give one of them a label"):
        CompareConfig(agents=["ppo", {"name": "ppo"}])
    with pytest.raises(SettingError, match="names, or mappings with a name"):
        CompareConfig(agents=[3])
    with pytest.raises(SettingError, match="at least 1 agent"):
        CompareConfig(agents=[])


def test_agents_can_be_listed_with_their_settings():
    options = list(options_of(CompareConfig))
    text = "equal_weight, {name: ppo, label: slow, learning_rate: 1e-4}"
    values = resolve(Document(), [("agents", text)], options)
    agents = build(CompareConfig, values).agent_list
    assert [agent.title for agent in agents] == ["equal_weight", "slow"]
    assert agents[1].settings == {"learning_rate": 1e-4}


def test_a_secret_is_never_stored_with_a_run():
    with pytest.raises(SettingError, match="FRED_API_KEY"):
        DataConfig(source="fred", options={"api_key": "abc123"})
