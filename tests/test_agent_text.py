"""Agents with their settings as one text: what is read, what they are called, what is refused."""

from typing import Any

import pytest

from agents import AGENTS, ALSO_CALLED
from experiments.agent_choice import make_agent
from experiments.agent_text import read_agent
from experiments.config import AgentConfig, CompareConfig
from experiments.run_dir import check_name
from market import SettingError
from market.names import parse_call


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("forecast", "forecast", {}),
        (
            "forecast(forecaster=ridge, rule=mean_variance)",
            "forecast",
            {"forecaster": "ridge", "rule": "mean_variance"},
        ),
        (
            "forecast(model=gru(width=8, loss=ic), target=return, horizon=5)",
            "forecast",
            {"model": "gru(width=8, loss=ic)", "target": "return", "horizon": 5},
        ),
        (
            "my_agents.py:Sprinter(fast=true, path='a (b).csv', none=none, list=[a, b(c=1), -2])",
            "my_agents.py:Sprinter",
            {"fast": True, "path": "a (b).csv", "none": None, "list": ["a", "b(c=1)", -2]},
        ),
        ("ppo(learning_rate=1e-4)", "ppo", {"learning_rate": 1e-4}),
    ],
)
def test_words_need_no_quotes(text: str, name: str, settings: dict[str, Any]) -> None:
    found = read_agent(text)
    assert (found.name, found.settings) == (name, settings)
    assert (found.label is None) == (not settings)
    if found.label:
        assert check_name("label", found.label) == found.label


def test_labels_say_what_differs_and_can_be_given() -> None:
    config = CompareConfig(
        agents=[
            "forecast(forecaster=ridge, rule=mean_variance)",
            "forecast(forecaster=gru(width=8), horizon=5, rule=top_k(k=3))",
            "forecast(rule=softmax, label=soft)",
            "equal_weight",
        ]
    )
    titles = [agent.title for agent in config.agent_list]
    assert titles == [
        "forecast-ridge-mean_variance",
        "forecast-gru.width8-horizon5-top_k.k3",
        "soft",
        "equal_weight",
    ]
    with pytest.raises(SettingError, match="appears twice"):
        CompareConfig(agents=["forecast(rule=top_k)", "forecast(rule=top_k)"])


def test_settings_beside_a_text_win() -> None:
    found = AgentConfig.of({"name": "forecast(rule=top_k, horizon=2)", "horizon": 5, "label": "x"})
    assert found == AgentConfig(
        name="forecast", label="x", settings={"rule": "top_k", "horizon": 5}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forecast(", r"cannot read agent 'forecast\('; write it as name\(key=value, ...\)"),
        ("forecast(ridge)", r"write settings by name, as forecast\(key=value\)"),
        ("forecast(label=3)", r"label must be text, got 3"),
        ("forecast(a=__import__('os').system('x'), b=1+f())", "cannot read agent"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_agent(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("forecast(forecaster=rige)", r"unknown forecaster 'rige'; did you mean 'ridge'.*cnn, fnn"),
        ("forecast(rule=blacklitterman)", r"unknown rule .*did you mean 'black_litterman'"),
        ("forecast(target=price)", r"target must be 'return' \| 'volatility' \| 'direction'"),
        ("forecast(forecaster=gru(loss=mae))", r"loss must be 'mse' \| 'huber' \| 'gaussian' \|"),
        ("forecast(forecaster=gru(widht=8))", r"unknown setting .*'widht'; did you mean 'width'"),
        ("forecast(rule=top_k(k=0))", r"top_k: k must be in \[1, inf\), got 0"),
        ("forecast(horizon=0)", r"horizon must be in \[1, inf\), got 0"),
        ("forecast(horizon=5, forecaster=ridge(horizon=2))", "horizon is given twice, also as 5"),
        ("forecast(forecaster=ridge, model=gru)", "model and forecaster are the same; give one"),
        ("forecast(forecaster=textbook_lstm, horizon=5)", "foresees next-day returns alone"),
        ("OLMAR(window=3)", "unknown agent 'OLMAR'; did you mean 'moving_average_reversion'"),
        ("mean_variance(window=1, label=mine)", "^agent mine: window must be in "),
        ("forecast(forecaster=transformer(width=7))", "width of encoder transformer must be even"),
    ],
)
def test_what_there_is_not_is_said_with_what_there_is(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make_agent(AgentConfig.of(text))


def test_papers_names_lead_to_agents_there_are() -> None:
    assert set(ALSO_CALLED.values()) <= set(AGENTS)
    assert not set(ALSO_CALLED) & set(AGENTS)


def test_texts_are_read_without_being_run() -> None:
    for text in ("f(a=(lambda: 1)())", "f(a={b: c})", "f(a=b[0])", "f(*a)", "f(a=b, **c)"):
        with pytest.raises(SettingError, match="cannot read"):
            parse_call(text, words=True)
    assert parse_call("f(a=b(c, d=exit()))", words=True)[2] == {"a": "b(c, d=exit())"}
