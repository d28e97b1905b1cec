"""The comparison table against hand formulas, and its words against cases with a known answer."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import trim_mean

from experiments import verdict
from experiments.runs import Run
from experiments.summary import print_table, summarise
from experiments.verdict import headline, verdict_lines
from market.errors import DataError, SettingError

T = 504
DAYS = pd.date_range("2016-01-04", periods=T, freq="B", name="date")
BASE = np.random.default_rng(0).normal(0.0004, 0.01, T)


def make(agent, returns, seed=0, experiment="demo", days=DAYS, manifest=None, **columns):
    returns = np.asarray(returns, dtype=float)
    frame = pd.DataFrame(
        {
            "value": np.cumprod(1 + returns),
            "portfolio_return": returns,
            "cost": columns.get("cost", 1e-4),
            "turnover": columns.get("turnover", 0.05),
            "risk_free": columns.get("risk_free", 4e-5),
            "target:stocks": 0.7,
            "target:cash": 0.3,
        },
        index=days,
    )
    path = Path(f"results/{experiment}/{agent}/seed_{seed:03d}")
    return Run(
        path=path,
        experiment=experiment,
        agent=agent,
        seed=seed,
        manifest=manifest or {},
        backtest=frame,
    )


def quick(runs, **options):
    return summarise(runs, n_resamples=200, **options)


def noise(seed, scale=0.002):
    return np.random.default_rng(seed).normal(0, scale, T)


@pytest.mark.parametrize("n_seeds", [1, 2, 3, 5, 8])
def test_every_number_is_the_trimmed_mean_over_seeds_of_the_hand_formula(n_seeds):
    rng = np.random.default_rng(n_seeds)
    runs = [
        make(
            "ppo",
            BASE + noise(seed),
            seed,
            cost=rng.uniform(0, 1e-3, T),
            turnover=rng.uniform(0, 0.3, T),
            risk_free=rng.uniform(0, 1e-4, T),
        )
        for seed in range(n_seeds)
    ]
    by_seed = []
    for run in runs:
        frame = run.backtest
        wealth = np.concatenate([[1.0], frame["value"]])
        excess = frame["portfolio_return"] - frame["risk_free"]
        deepest = max(1 - wealth[i] / wealth[: i + 1].max() for i in range(T + 1))
        by_seed.append(
            {
                "annual_return": wealth[-1] ** (252 / T) - 1,
                "volatility": frame["portfolio_return"].std(ddof=1) * 252**0.5,
                "sharpe": excess.mean() / excess.std(ddof=1) * 252**0.5,
                "max_drawdown": deepest,
                "turnover": frame["turnover"].sum() / (T / 252),
                "cost": frame["cost"].sum() / (T / 252),
                "final_value": wealth[-1],
            }
        )
    expected = {key: trim_mean([one[key] for one in by_seed], 0.25) for key in by_seed[0]}
    row = quick(runs).loc["ppo"]
    assert (row["seeds"], row["failed"]) == (n_seeds, 0)
    for key, number in expected.items():
        assert row[key] == pytest.approx(number, rel=1e-10), key
    assert row["sharpe_low"] < row["sharpe"] < row["sharpe_high"]


def test_the_sharpe_interval_of_independent_days_has_the_textbook_width():
    row = summarise([make("ppo", BASE)]).loc["ppo"]
    per_day = row["sharpe"] / 252**0.5
    width = 2 * 1.96 * np.sqrt((1 + per_day**2 / 2) / T) * 252**0.5  # Lo (2002)
    assert row["sharpe_high"] - row["sharpe_low"] == pytest.approx(width, rel=0.15)


def test_clear_winners_and_losers_are_told_from_noise():
    runs = [make("equal_weight", BASE)]
    runs += [make("winner", BASE + 0.001 + noise(1)), make("loser", BASE - 0.001 + noise(2))]
    runs += [make("twin", BASE + noise(3) - noise(3).mean())]
    frame = quick(runs)
    assert list(frame.index[[0, -1]]) == ["winner", "loser"]
    assert frame.loc["winner", "verdict"] == "better than equal weight"
    assert frame.loc["winner", "difference_low"] > 0
    assert frame.loc["loser", "verdict"] == "worse than equal weight"
    assert frame.loc["loser", "difference_high"] < 0
    assert frame.loc["twin", "verdict"] == "not distinguishable from equal weight"
    assert frame.loc["equal_weight", "verdict"] == "reference"
    for agent in ("winner", "loser", "twin"):
        gap = frame.loc[agent, "sharpe"] - frame.loc["equal_weight", "sharpe"]
        assert frame.loc[agent, "difference"] == pytest.approx(gap, abs=1e-9)
    assert headline(frame).startswith("winner beat equal weight")
    assert headline(quick([runs[0], runs[3]])).startswith("No agent is better than equal weight")
    assert headline(quick([runs[0], runs[2]])).startswith("Every agent did worse")
    assert headline(quick([runs[0]])).startswith("Nothing to compare")
    lines = verdict_lines(frame)
    assert [line.split(":")[0] for line in lines] == [
        "Better than equal weight",
        "Not distinguishable from equal weight",
        "Worse than equal weight",
    ]
    for line, agent in zip(lines, ("winner", "twin", "loser"), strict=True):
        middle, low, high = frame.loc[agent, ["difference", "difference_low", "difference_high"]]
        assert line.endswith(f": {agent} {middle:+.2f} ({low:+.2f} to {high:+.2f}).")


def test_the_headline_holds_the_number_of_agents_against_the_winners():
    rng = np.random.default_rng(3)
    others = [make(f"noise{i}", BASE + noise(i) - noise(i).mean()) for i in range(1, 8)]
    edge = BASE + 0.00022 + noise(40) - noise(40).mean()
    frame = quick([make("equal_weight", BASE), make("lucky", edge), *others])
    lucky = frame.loc["lucky"]
    assert lucky["verdict"] == "not distinguishable from equal weight"
    assert lucky["difference_low"] > 0
    assert lucky["p_value"] < 0.05 < lucky["p_adjusted"]
    assert lucky["p_adjusted"] == pytest.approx(min(1, 8 * frame["p_value"].min()))
    assert headline(frame) == (
        "No agent is better than equal weight by more than luck explains: "
        "one looks so alone, but not as the best of 8."
    )
    alone = quick([make("equal_weight", BASE), make("lucky", edge)])
    assert alone.loc["lucky", "p_adjusted"] == alone.loc["lucky", "p_value"]
    assert headline(alone).startswith("lucky beat equal weight")
    many = [make(f"good{i}", BASE + 0.002 + rng.normal(0, 1e-3, T)) for i in range(5)]
    assert headline(quick([make("equal_weight", BASE), *many])).startswith("5 of 5 agents beat")


def test_failed_runs_are_counted_and_agents_without_any_result_stay_in_the_table():
    bad = [
        Run(
            path=Path(f"x{i}"),
            experiment="demo",
            agent=agent,
            seed=i,
            status="failed",
            error="diverged",
        )
        for i, agent in enumerate(["sac", "dqn", "dqn"])
    ]
    frame = quick([bad[0], make("sac", BASE, 3), make("equal_weight", BASE), *bad[1:]])
    assert frame.loc["sac", ["seeds", "failed"]].tolist() == [1, 1]
    assert frame.index[-1] == "dqn"
    assert frame.loc["dqn", ["seeds", "failed"]].tolist() == [0, 2]
    assert np.isnan(frame.loc["dqn", "sharpe"])
    assert frame.loc["dqn", "verdict"] == "no finished run"
    compared = " of 2 (model confidence set)"  # dqn, which has not run, is not among them
    assert any(compared in line for line in verdict.together(frame))
    assert "Failed: dqn, 2 of 2 runs did not finish." in verdict_lines(frame)
    assert "Failed: sac, 1 of 2 runs did not finish." in verdict_lines(frame)
    nothing = quick(bad)
    assert nothing["seeds"].sum() == 0 and len(nothing) == 2


def test_an_agent_that_never_leaves_cash_has_no_sharpe_ratio_but_all_else():
    idle = make("idle", np.full(T, 4e-5), risk_free=np.full(T, 4e-5), turnover=0.0, cost=0.0)
    row = quick([idle, make("equal_weight", BASE)]).loc["idle"]
    assert np.isnan(row[["sharpe", "sharpe_low", "difference"]].astype(float)).all()
    assert row["verdict"] == "no Sharpe ratio: returns over cash do not vary"
    assert row["annual_return"] == pytest.approx((1 + 4e-5) ** 252 - 1)
    assert (row["max_drawdown"], row["turnover"]) == (0, 0)


def test_without_the_reference_nothing_is_claimed():
    frame = quick([make("ppo", BASE), make("sac", BASE + 0.01)])
    assert set(frame["verdict"]) == {"no reference to compare with"}
    other = quick([make("ppo", BASE), make("sac", BASE + 0.01)], reference="ppo")
    assert other.loc["sac", "verdict"] == "better than ppo"


def test_agents_of_several_experiments_are_compared_with_their_own_reference():
    runs = [make("equal_weight", BASE, experiment="cheap"), make("ppo", BASE, experiment="cheap")]
    runs += [make("equal_weight", BASE - 0.001, experiment="dear")]
    runs += [make("ppo", BASE + noise(1, 1e-4), experiment="dear")]
    frame = quick(runs)
    assert set(frame.index) == {
        "cheap/equal_weight",
        "cheap/ppo",
        "dear/equal_weight",
        "dear/ppo",
    }
    assert frame.loc["cheap/ppo", "difference"] == pytest.approx(0, abs=1e-9)
    assert frame.loc["dear/ppo", "verdict"] == "better than equal weight"


def test_what_cannot_be_compared_is_refused_and_named():
    with pytest.raises(SettingError, match="at least one run"):
        summarise([])
    later = make("sac", BASE, days=DAYS + pd.Timedelta(days=7))
    with pytest.raises(DataError, match=r"same test days.*ppo.*2016-01-04.*sac.*2016-01-11"):
        summarise([make("ppo", BASE), later])
    with pytest.raises(DataError, match="demo/ppo seed 0 is there twice"):
        summarise([make("ppo", BASE), make("ppo", BASE)])
    for number in ("<b>", -1, None):
        manifest = {"data": {"periods_per_year": number}}
        with pytest.raises(DataError, match="periods_per_year"):
            summarise([make("ppo", BASE, manifest=manifest)])
    with pytest.raises(DataError, match=r"agree.*periods_per_year"):
        quick([make("a", BASE), make("b", BASE, manifest={"data": {"periods_per_year": 52}})])


def test_periods_per_year_come_from_the_manifest():
    daily, weekly = (
        make("ppo", BASE),
        make("ppo", BASE, manifest={"data": {"periods_per_year": 52}}),
    )
    ratio = quick([weekly]).loc["ppo", "sharpe"] / quick([daily]).loc["ppo", "sharpe"]
    assert ratio == pytest.approx((52 / 252) ** 0.5)
    assert quick([weekly]).loc["ppo", "turnover"] == pytest.approx(0.05 * 52)


def test_the_same_runs_give_the_same_table_in_any_order_of_agents():
    runs = [make("equal_weight", BASE), make("ppo", BASE + noise(1)), make("sac", BASE + noise(2))]
    pd.testing.assert_frame_equal(quick(runs), quick(runs[::-1]))


def test_the_printed_table_fits_120_columns_and_shows_the_numbers():
    names = ["equal_weight", "mean_variance", "[red]not markup[/red]", "a_name_" * 9]
    runs = [make(name, BASE - 0.002 * i + noise(i)) for i, name in enumerate(names)]
    runs.append(
        Run(path=Path("x"), experiment="demo", agent=names[1], seed=1, status="failed", error="x")
    )
    frame, out = quick(runs), io.StringIO()
    print_table(frame, Console(file=out, width=120))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 120
    row = next(line for line in lines if line.startswith("mean_variance"))
    numbers = frame.loc["mean_variance"]
    assert row.split() == [
        "mean_variance",
        f"{numbers['annual_return']:.1%}",
        f"{numbers['volatility']:.1%}",
        f"{numbers['sharpe']:.2f}",
        f"{numbers['sharpe_low']:.2f}",
        "to",
        f"{numbers['sharpe_high']:.2f}",
        f"{numbers['max_drawdown']:.1%}",
        f"{numbers['turnover']:.1f}",
        f"{numbers['cost']:.2%}",
        f"{numbers['final_value']:.3f}",
        *["1", "of", "2"],
    ]
    text = " ".join(" ".join(lines).split())
    assert "equal_weight *" in text and "* equal weight is the reference." in text
    assert "[red]not markup[/red]" in text
    assert "in excess of the cash rate, annualised with 252 periods a year" in text
    assert "Failed: mean_variance, 1 of 2 runs did not finish." in text
