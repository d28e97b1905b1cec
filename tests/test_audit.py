"""The leak audit: planted leaks are caught by name, and what is clean raises no alarm."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market, SettingError, load_market
from market.audit import JOINS, AuditReport, audit, audit_function
from market.calendar import resample
from market.features import FEATURES, build_features
from market.features.scaling import Method, Scaler
from market.sample_tables import SPECS, sample_tables
from market.sources import SOURCES
from market.sources.bundled import UNIVERSES
from market.what_if import begun, cut, poisoned, rescaled, with_listings

T = 700


def panel_market(seed: int = 0, periods: int = T, listings: bool = True) -> Market:
    """Four risky assets with ranges and volume, cash and yields."""
    rng = np.random.default_rng(seed)
    closes = 50.0 * np.exp(np.cumsum(0.012 * rng.standard_t(5, (periods, 4)), axis=0))
    spread = np.abs(rng.normal(0, 0.01, (2, periods, 4)))
    cash = np.full((periods, 1), np.nan)
    market = Market.from_prices(
        pd.DataFrame(closes, pd.bdate_range("2012-01-02", periods=periods), [*"ABCD"]),
        cash_rate=0.02,
        opens=np.hstack([closes, cash]),
        highs=np.hstack([closes * (1 + spread[0]), cash]),
        lows=np.hstack([closes * (1 - spread[1]), cash]),
        volume=np.hstack([rng.lognormal(10, 1, (periods, 4)), cash]),
        context=0.03 + 0.001 * np.cumsum(rng.normal(size=(periods, 2)), axis=0),
        context_names=("yield_3m", "yield_10y"),
        name="panel",
    )
    return with_listings(market) if listings else market


def verdicts(function: Callable[[Any], Any], world: Any, **settings: Any) -> dict[str, str]:
    found = audit_function(function, world, **settings)
    return {finding.test: finding.verdict for finding in found}


def frame(market: Market) -> pd.DataFrame:
    return pd.DataFrame(market.prices, market.dates)


# ---- leaks that are planted: C1 to C6, C8, C10, C15 of the reliability matrix


def next_return(market: Market) -> np.ndarray:
    """C1: tomorrow's return."""
    ahead = np.zeros_like(market.returns)
    ahead[:-1] = market.returns[1:]
    return ahead


def scaled_on_all(market: Market) -> np.ndarray:
    """C2: a scaler that saw the whole span."""
    return Scaler.fit(market).transform(market).features


def centred_mean(market: Market) -> pd.DataFrame:
    """C3: a window around the day."""
    return frame(market).pct_change(fill_method=None).rolling(5, center=True).mean()


def negative_shift(market: Market) -> pd.DataFrame:
    """C3: yesterday is tomorrow."""
    prices = frame(market)
    return prices.shift(-3) / prices - 1


def listing_filled_backwards(market: Market) -> pd.DataFrame:
    """C4: a late listing has had its first price for ever."""
    prices = frame(market).bfill()
    return prices.div(prices[0], axis=0)


def survivors(market: Market) -> pd.DataFrame:
    """C5: the assets that are still there at the end."""
    kept = np.isfinite(market.prices[-1])
    return pd.DataFrame(market.returns[:, kept], market.dates, np.array(market.assets)[kept])


def winners(market: Market) -> pd.DataFrame:
    """C5: the assets that came out on top."""
    growth = np.nanprod(1 + market.returns, axis=0)
    kept = np.sort(np.argsort(growth)[-2:])
    return pd.DataFrame(market.returns[:, kept], market.dates, np.array(market.assets)[kept])


def weeks_by_their_start(market: Market) -> pd.DataFrame:
    """C6: a week's last price on its first day."""
    weekly = frame(market).resample("W-FRI", label="left", closed="right").last()
    return weekly.pct_change(fill_method=None)


def months_by_their_start(market: Market) -> pd.DataFrame:
    """C6: the month's return on its first day."""
    return frame(market).resample("MS").last().pct_change(fill_method=None)


def daily_from_weeks_by_start(market: Market) -> pd.DataFrame:
    """C6, hidden: the week's close carried through the week."""
    weeks = frame(market).resample("W-FRI", label="left").last()
    return weeks.reindex(market.dates, method="ffill") / frame(market)


def price_levels(market: Market) -> np.ndarray:
    """C8: levels that a later split rewrites."""
    return np.log(market.prices)


def unsettled_mean(market: Market) -> pd.DataFrame:
    """C15: a recursive mean that says nothing of its warm-up."""
    prices = frame(market)
    return prices / prices.ewm(span=200, adjust=False).mean() - 1


def expanding_peak(market: Market) -> pd.DataFrame:
    """C15: the distance to the highest price since the data begin."""
    prices = frame(market)
    return prices / prices.cummax() - 1


FUTURE = ["truncate", "poison"]
PLANTED: dict[Callable[[Any], Any], list[str]] = {
    next_return: FUTURE,
    scaled_on_all: FUTURE,
    centred_mean: FUTURE,
    negative_shift: FUTURE,
    listing_filled_backwards: FUTURE,
    survivors: FUTURE,
    winners: FUTURE,
    weeks_by_their_start: FUTURE,
    months_by_their_start: FUTURE,
    daily_from_weeks_by_start: FUTURE,
    price_levels: ["scale"],
    unsettled_mean: ["start"],
    expanding_peak: ["start"],
}


@pytest.mark.parametrize("leak", PLANTED, ids=lambda leak: leak.__name__)
def test_a_planted_leak_is_caught(leak: Callable[[Any], Any]) -> None:
    for seed in (0, 1):
        found = verdicts(leak, panel_market(seed), seed=seed)
        for test in PLANTED[leak]:
            assert found[test] == "FAIL", (test, seed)


def ends(market: Market, months: int) -> np.ndarray:
    """The last rows of periods of so many months, the market's last row left out."""
    number = np.asarray(market.dates.year * 12 + market.dates.month - 1) // months
    return np.flatnonzero(number[1:] != number[:-1])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("months", "later"), [(1, 0), (3, 0), (12, 0), (1, 1)])
def test_a_leak_on_turns_of_the_calendar_alone_is_caught(
    seed: int, months: int, later: int
) -> None:
    """Tomorrow's return on ends of months, quarters or years only, or on first rows of months."""

    def peek(market: Market) -> np.ndarray:
        values, rows = market.returns.copy(), ends(market, months) + later
        rows = rows[rows < market.n_periods - 1]
        values[rows] = market.returns[rows + 1]
        return values

    found = audit_function(peek, panel_market(), seed=seed, tests=FUTURE)
    assert [finding.verdict for finding in found] == ["FAIL", "FAIL"]
    assert [finding.tested for finding in found] == [20, 20]


def test_a_report_says_at_how_many_dates_it_tested() -> None:
    market = panel_market()
    assert audit(market, ["rsi"], dates=6, joins=False).dates == 6
    assert AuditReport(()).dates == 0
    few = audit_function(lambda world: world.returns, market, dates=4, tests=("truncate", "scale"))
    assert AuditReport(few).dates == 4 and AuditReport(few[1:]).dates == 1


def test_a_gap_filled_backwards_is_caught() -> None:
    """C4, on a table as a source reads it."""
    prices = frame(panel_market(listings=False))
    prices[np.random.default_rng(3).uniform(size=prices.shape) < 0.2] = np.nan
    assert verdicts(lambda table: table.bfill(), prices)["truncate"] == "FAIL"
    assert verdicts(lambda table: table.bfill(), prices)["poison"] == "FAIL"
    forward = verdicts(lambda table: table.ffill(), prices, tests=FUTURE)
    assert forward == {"truncate": "pass", "poison": "pass"}


def by_reference_month(world: tuple[Market, dict[str, pd.DataFrame]]) -> np.ndarray:
    """C10: a figure on the first day of the month it is about."""
    market, tables = world
    series = tables["cpi"].drop_duplicates("date").set_index("date")["value"]
    return series.reindex(market.dates, method="ffill").to_numpy()


def by_revised_vintage(world: tuple[Market, dict[str, pd.DataFrame]]) -> np.ndarray:
    """C10: on its publication already the figure that only a later revision gave."""
    market, tables = world
    latest = tables["cpi"].drop_duplicates("date", keep="last").set_index("date")
    first = tables["cpi"].drop_duplicates("date").set_index("date")
    series = pd.Series(latest["value"].to_numpy(), first["published"].reindex(latest.index))
    return series.sort_index().reindex(market.dates, method="ffill").to_numpy()


def by_release(world: tuple[Market, dict[str, pd.DataFrame]]) -> np.ndarray:
    """The last figure that was out."""
    market, tables = world
    rows = (
        tables["cpi"]
        .sort_values("published", kind="stable")
        .drop_duplicates("published", keep="last")
    )
    series = rows.set_index("published")["value"]
    return series.reindex(market.dates, method="ffill").to_numpy()


def revised(market: Market) -> dict[str, pd.DataFrame]:
    """Monthly figures, each revised two months after its release."""
    first = sample_tables(market)["cpi"]
    again = first.assign(
        published=first["published"] + pd.Timedelta(days=60), value=first["value"] * 1.01
    )
    return {"cpi": pd.concat([first, again], ignore_index=True)}


def test_a_join_by_anything_but_the_release_is_caught() -> None:
    market = panel_market()
    for leak in (by_reference_month, by_revised_vintage):
        found = verdicts(leak, (market, revised(market)), tests=FUTURE)
        assert found == {"truncate": "FAIL", "poison": "FAIL"}, leak
    clean = verdicts(by_release, (market, revised(market)))
    assert set(clean.values()) == {"pass"}


def early_figures(world: Any) -> Any:
    """FRED by reference date."""
    prices, context = world
    first = {name: table.drop_duplicates("date") for name, table in context.items()}
    return prices, {name: table.assign(published=table["date"]) for name, table in first.items()}


def filled_backwards(answers: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Yahoo with each ticker on the dates of all, and tomorrow's price on days without one."""
    dates = sorted(set().union(*(frame.index for frame in answers.values())))
    return {name: frame.reindex(dates).bfill().dropna() for name, frame in answers.items()}


def next_yield(world: Any) -> Any:
    """Treasury yields filled from the next publication."""
    prices, table = world
    dated = table.set_index("date").reindex(prices.index).bfill().ffill()
    return prices, dated.rename_axis("date").reset_index()


@pytest.mark.parametrize(
    ("name", "leak"),
    [("fred", early_figures), ("yahoo", filled_backwards), ("bundled", next_yield)],
)
def test_a_source_that_joined_too_early_would_be_caught(
    name: str, leak: Callable[[Any], Any]
) -> None:
    join = JOINS[name]
    world = join.make(panel_market(5, 620), 0)
    assert set(verdicts(join.function, world, tests=FUTURE).values()) == {"pass"}
    found = verdicts(lambda data: join.function(leak(data)), world, tests=FUTURE)
    assert found == {"truncate": "FAIL", "poison": "FAIL"}


def test_a_finding_says_where_and_how_much() -> None:
    market = panel_market(listings=False)
    found = audit_function(next_return, market, tests=("truncate",), name="peek")[0]
    assert (found.name, found.verdict, found.tested) == ("peek", "FAIL", 20)
    assert found.date is not None and found.date in market.dates
    days = [market.dates[20 * i] for i in range(1, 5)]
    assert found.date < days[-1]  # the first date that moved, not the last
    late = np.zeros((T, 1))

    def last_days(world: Market) -> np.ndarray:
        """Sees 3 days ahead, of which only the level of the last 100 rows tells."""
        column = late[: world.n_periods].copy()
        column[600:, 0] = pd.Series(world.returns[600:, 0]).shift(-3).fillna(0.0)
        return column

    date = audit_function(last_days, market, tests=("truncate",))[0].date
    assert date is not None and date > market.dates[590]
    spread = np.nanstd(next_return(market)[:, 0])
    assert 0.0 < found.size < 12 * spread / spread


# ---- what is clean passes, over several seeds


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 20))]
)
def test_no_false_alarm_over_registered_features_joins_and_scalers(seed: int) -> None:
    specs = [SPECS.get(name, name) for name in FEATURES]
    report = audit(panel_market(seed, 620), specs, dates=5, seed=seed)
    wrong = [finding for finding in report.findings if finding.verdict == "FAIL"]
    assert not wrong, wrong
    assert report.passed
    tested = {finding.name for finding in report.findings if finding.verdict == "pass"}
    assert {f"join {name}" for name in JOINS} <= tested
    assert {"join files", "join yahoo", "join fred", "join bundled"} <= tested
    assert {f"scaler {method}" for method in get_args(Method)} <= tested


def test_every_registered_feature_was_tested_by_every_test_it_can() -> None:
    report = audit(panel_market(5, 1100), dates=2, joins=False)
    frame = report.frame()
    assert len(frame) == 4 * len(FEATURES)
    assert (frame["verdict"] == "pass").all(), frame[frame["verdict"] != "pass"]


def test_every_source_of_data_has_its_join_audited() -> None:
    """Those that are not bundled, where one join stands for all, or made up from a seed."""
    assert set(SOURCES) - set(UNIVERSES) - {"synthetic"} <= set(JOINS)
    assert "bundled" in JOINS


def test_bundled_universes_are_audited_through_their_loader() -> None:
    report = audit(lambda: load_market("multi_asset", features=["return"]), ["rsi"], joins=False)
    assert report.passed and not report.leaks


@pytest.mark.parametrize("frequency", ["weekly", "monthly"])
def test_features_of_longer_periods_are_clean(frequency: Any) -> None:
    def momentum(market: Market) -> pd.DataFrame:
        longer = resample(market, frequency)
        built = build_features(longer, ["return(3)"]).features[:, :, 0]
        return pd.DataFrame(built, longer.dates)

    found = verdicts(momentum, panel_market())
    assert set(found.values()) == {"pass"}


def test_an_agents_weights_are_audited_too() -> None:
    """Weights that chase yesterday's best are clean; those that know tomorrow's are not."""

    def best(market: Market, rows: np.ndarray) -> np.ndarray:
        return np.eye(market.n_assets)[rows.argmax(axis=1)]

    market = panel_market()
    assert set(verdicts(lambda m: best(m, m.returns), market, tests=FUTURE).values()) == {"pass"}
    assert "FAIL" in verdicts(lambda m: best(m, next_return(m)), market, tests=FUTURE).values()


# ---- users' own functions


def test_a_users_function_and_file_are_audited(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "def peek(market):\n    return np.roll(market.returns, -1, axis=0)\n"
        "def gain(market):\n    return market.returns > 0\n"
    )
    report = audit(panel_market(), [f"{path}:peek", f"{path}:gain", next_return], joins=False)
    failed = {finding.name for finding in report.leaks}
    assert failed == {f"{path}:peek", "next_return"}
    assert not report.passed
    with pytest.raises(SettingError, match="has no 'nothing'"):
        audit(panel_market(), [f"{path}:nothing"], joins=False)


def test_a_users_decorator_is_audited_with_the_function(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.py"
    path.write_text(
        "import functools\nimport numpy as np\n"
        "def with_shift(shift):\n"
        "    def decorate(f):\n"
        "        @functools.wraps(f)\n"
        "        def g(market):\n"
        "            return np.roll(f(market), shift, axis=0)\n"
        "        return g\n"
        "    return decorate\n"
        "@with_shift(-1)\ndef peek(market):\n    return np.array(market.returns)\n"
        "@with_shift(0)\ndef honest(market):\n    return np.array(market.returns)\n"
    )
    report = audit(panel_market(), [f"{path}:peek", f"{path}:honest"], joins=False)
    assert {leak.name for leak in report.leaks} == {f"{path}:peek"}
    assert {"truncate", "poison"} <= {leak.test for leak in report.leaks}


def test_what_refuses_is_not_called_clean() -> None:
    def refuse(market: Market) -> np.ndarray:
        raise DataError("no")

    found = audit_function(refuse, panel_market())
    assert {finding.verdict for finding in found} == {"n/a"}
    assert {finding.detail for finding in found} == {"no"}
    assert not audit(panel_market(), [refuse], joins=False).passed


def test_bad_requests_are_named() -> None:
    market = panel_market()
    with pytest.raises(DataError, match=r"a row for each of the 700 dates, got shape \(3,\)"):
        audit_function(lambda _: np.zeros(3), market)
    with pytest.raises(DataError, match="must be indexed by date"):
        audit_function(lambda _: pd.DataFrame({"x": [1.0]}), market)
    with pytest.raises(SettingError, match="unknown test 'truncat'"):
        audit_function(next_return, market, tests=("truncat",))
    with pytest.raises(SettingError, match="800 dates need more than the 700 rows"):
        audit_function(next_return, market, dates=800)
    with pytest.raises(SettingError, match="dates must be >= 1"):
        audit_function(next_return, market, dates=0)
    with pytest.raises(DataError, match="neither a market nor a table"):
        audit_function(next_return, {})
    found = audit_function(lambda world: world[0].returns, (market, 3))
    assert found[0].detail == "audit: data must be markets and tables, got int"


# ---- the other worlds themselves


def test_the_past_of_a_poisoned_market_is_untouched_and_its_future_is_not() -> None:
    market = panel_market()
    date = market.dates[400]
    other = poisoned(market, date, np.random.default_rng(0))
    for key in ("prices", "returns", "highs", "lows", "volume", "context", "risk_free", "tradable"):
        here, there = getattr(market, key), getattr(other, key)
        np.testing.assert_array_equal(here[:401], there[:401])
        later = np.isfinite(here[401:]) & np.isfinite(there[401:].astype(float))
        moved = here[401:] != there[401:]
        assert (moved & later).any() if key == "tradable" else moved[later].mean() > 0.7, key
    assert other.tradable[401].sum() == market.tradable[401].sum() - 1
    np.testing.assert_array_equal(cut(market, date).prices, market.prices[:401])
    np.testing.assert_array_equal(begun(market, date).prices, market.prices[400:])


def test_tables_are_known_from_their_publication() -> None:
    table = pd.DataFrame(
        {
            "date": pd.to_datetime(["2020-01-01", "2020-02-01"]),
            "published": pd.to_datetime(["2020-02-15", "2020-03-15"]),
            "value": [1.0, 2.0],
            "text": ["good", "fine"],
        }
    )
    assert len(cut(table, pd.Timestamp("2020-02-14"))) == 0
    assert len(cut(table, pd.Timestamp("2020-02-15"))) == 1
    other = poisoned(table, pd.Timestamp("2020-02-15"), np.random.default_rng(0))
    assert other["value"].tolist()[0] == 1.0 and other["value"].tolist()[1] != 2.0
    assert other["text"].tolist()[0] == "good" and other["text"].tolist()[1] != "fine"
    assert cut({"x": pd.DataFrame({"a": [1.0]})}, pd.Timestamp("2020-01-01"))["x"].size == 1


def test_rescaling_is_a_split_that_leaves_returns_alone() -> None:
    market = panel_market(listings=False)
    tables = sample_tables(market)
    other, scaled = rescaled((market, tables))
    np.testing.assert_allclose(other.returns, market.returns, atol=1e-12)
    np.testing.assert_allclose(other.prices[:, 0], 7 * market.prices[:, 0])
    np.testing.assert_allclose(other.prices[:, 1], market.prices[:, 1] / 7)
    np.testing.assert_array_equal(other.prices[:, -1], market.prices[:, -1])
    np.testing.assert_allclose(
        (other.prices * other.volume)[:, :4], (market.prices * market.volume)[:, :4]
    )
    eps = "earnings_per_share"
    first = tables["fundamentals"]["asset"] == "A"
    ratio = scaled["fundamentals"][eps] / tables["fundamentals"][eps]
    np.testing.assert_allclose(ratio[first], 7)
    assert scaled["cpi"] is tables["cpi"]


def test_listings_are_made_only_where_there_are_none() -> None:
    market = panel_market(listings=False)
    changed = with_listings(market)
    assert not changed.tradable[0, 3] and changed.tradable[-1, 3]
    assert changed.tradable[0, 2] and not changed.tradable[-1, 2]
    assert with_listings(changed) is changed
    few = dataclasses.replace(market.__class__.from_prices(frame(market)[[0, 1]], cash_rate=None))
    assert with_listings(few) is few
