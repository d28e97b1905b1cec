"""Calendars: longer periods by hand and against pandas, labels at their end, mixed calendars."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from market import DataError, InputError, Market, SettingError, load_market
from market.calendar import period_ends, resample, shared_rows, weekend_traders
from market.market import PANELS
from market.returns import simple_returns

# Two weeks from a Wednesday; Friday the 10th is a holiday; Monday the 13th is an unfinished week.
DAYS = pd.DatetimeIndex([f"2020-01-{day:02d}" for day in (1, 2, 3, 6, 7, 8, 9, 13)])


def small(**fields: Any) -> Market:
    prices = np.array(
        [[10, 20], [11, 19], [12, 18], [13, 21], [9, 22], [10, 23], [14, 24], [15, 25]]
    )
    cash = np.cumprod(np.r_[1.0, np.full(7, 1.01)])
    return Market(
        dates=DAYS,
        assets=("AAA", "BBB", "cash"),
        prices=np.column_stack([prices, cash]),
        risk_free=np.r_[0.0, np.full(7, 0.01)],
        name="small",
        **fields,
    )


def test_weeks_by_hand() -> None:
    panel = np.column_stack([np.arange(1.0, 9), np.arange(11.0, 19), np.full(8, np.nan)])
    weekly = resample(small(**dict.fromkeys(PANELS, panel)), "weekly")
    assert [f"{date:%Y-%m-%d}" for date in weekly.dates] == ["2020-01-03", "2020-01-10"]
    np.testing.assert_array_equal(weekly.prices[:, :2], [[12, 18], [14, 24]])
    np.testing.assert_allclose(weekly.returns[1, :2], [14 / 12 - 1, 24 / 18 - 1], rtol=1e-15)
    np.testing.assert_allclose(weekly.returns[1, 2], 1.01**4 - 1, rtol=1e-13)
    np.testing.assert_allclose(weekly.risk_free, [0, 1.01**4 - 1], rtol=1e-13)
    nan = np.nan
    np.testing.assert_array_equal(weekly.volume, [[6, 36, nan], [22, 62, nan]])
    np.testing.assert_array_equal(weekly.opens, [[1, 11, nan], [4, 14, nan]])
    np.testing.assert_array_equal(weekly.highs, [[3, 13, nan], [7, 17, nan]])
    np.testing.assert_array_equal(weekly.lows, [[1, 11, nan], [4, 14, nan]])
    np.testing.assert_array_equal(weekly.closes, [[3, 13, nan], [7, 17, nan]])
    assert weekly.feature_names == ("return",)
    np.testing.assert_allclose(weekly.features[1, 0, 0], 14 / 12 - 1, rtol=1e-6)
    assert "the last 1 rows are no whole period" in weekly.notes[-1]


@pytest.mark.parametrize(("frequency", "rule"), [("weekly", "W-FRI"), ("monthly", "BME")])
def test_last_prices_are_those_of_pandas(
    make_market: Callable[..., Market], frequency: Any, rule: str
) -> None:
    market = make_market(periods=500)
    frame = pd.DataFrame(market.prices, market.dates).resample(rule).last()
    frame = frame[frame.index <= market.dates[-1]]
    longer = resample(market, frequency)
    assert longer.dates.equals(frame.index)
    np.testing.assert_array_equal(longer.prices, frame.to_numpy())
    assert longer.periods_per_year == (52 if frequency == "weekly" else 12)
    growth = np.prod(1 + longer.returns, axis=0)
    np.testing.assert_allclose(growth, longer.prices[-1] / longer.prices[0], rtol=1e-12)
    cash = np.prod(1 + longer.risk_free[1:])
    np.testing.assert_allclose(cash, longer.prices[-1, -1] / longer.prices[0, -1], rtol=1e-12)


@pytest.mark.parametrize("frequency", ["weekly", "monthly"])
def test_cut_anywhere_the_rows_up_to_there_are_the_same(
    make_market: Callable[..., Market], frequency: Any
) -> None:
    market = make_market(periods=140)
    whole = resample(market, frequency)
    for t in range(60, 140):
        cut = resample(market.upto(t), frequency)
        known = int((whole.dates <= market.dates[t]).sum())
        assert cut.dates.equals(whole.dates[:known])
        np.testing.assert_array_equal(cut.prices, whole.prices[:known])


def test_no_row_holds_a_price_from_after_its_label() -> None:
    """Where the price is the time itself, a price above the label's is the future."""
    days = pd.date_range("2019-12-28", periods=400)
    for dates in (
        days,
        days[days.day_of_week < 5],
        days[(days.day_of_week < 5) | (days.day == 31)],
    ):
        price = (dates - days[0]).days.to_numpy() + 1.0
        market = Market(dates=dates, assets=("clock",), prices=price[:, None])
        for frequency in ("weekly", "monthly"):
            longer = resample(market, frequency)
            labels = (longer.dates - days[0]).days.to_numpy() + 1.0
            assert (longer.prices[:, 0] <= labels).all()
            assert (longer.prices[:, 0] > labels - 4).all()


def test_markets_that_trade_at_weekends_end_their_weeks_on_sunday() -> None:
    days = pd.date_range("2020-01-01", periods=40)
    assert (period_ends(days, "weekly").day_of_week == 6).all()
    assert period_ends(days, "monthly")[0] == pd.Timestamp("2020-01-31")
    stray = pd.DatetimeIndex([*pd.bdate_range("2020-01-01", "2020-02-28"), "2020-02-29"])
    assert period_ends(stray, "monthly")[-1] == pd.Timestamp("2020-03-31")


def test_times_of_day_are_kept() -> None:
    market = small()
    late = dataclasses.replace(market, dates=DAYS + pd.Timedelta(hours=16))
    assert str(resample(late, "weekly").dates[0]) == "2020-01-03 16:00:00"


def test_an_asset_that_leaves_in_mid_week_returns_what_its_days_did() -> None:
    market = small()
    prices = market.prices.copy()
    prices[5:, 0] = np.nan  # last price 9, on Tuesday
    returns = market.returns.copy()
    returns[5, 0], returns[6:, 0] = -0.4, 0.0
    left = dataclasses.replace(market, prices=prices, returns=returns, tradable=None, features=None)  # type: ignore[arg-type]
    weekly = resample(left, "weekly")
    assert np.isnan(weekly.prices[1, 0])
    assert weekly.returns[1, 0] == pytest.approx(9 / 12 * 0.6 - 1)
    assert not weekly.tradable[1, 0]


def test_an_asset_that_was_there_at_no_end_keeps_its_last_price() -> None:
    market = small()
    prices = market.prices.copy()
    prices[:3, 0] = prices[5:, 0] = np.nan  # from Monday to Tuesday of the second week
    brief = dataclasses.replace(market, prices=prices, returns=None, tradable=None, features=None)  # type: ignore[arg-type]
    weekly = resample(brief, "weekly")
    assert weekly.prices[1, 0] == 9
    assert not weekly.tradable[:, 0].any() and not weekly.returns[:, 0].any()


@pytest.mark.parametrize("frequency", ["weekly", "monthly"])
@pytest.mark.parametrize("last", range(60, 83))
def test_longer_periods_earn_what_the_days_did_delistings_included(
    frequency: Any, last: int
) -> None:
    """Held from the first period's end on, the value at each end is the same."""
    dates = pd.bdate_range("2020-01-01", periods=130, name="date")
    rng = np.random.default_rng(last)
    frame = pd.DataFrame(
        np.exp(rng.normal(0, 0.02, (130, 2)).cumsum(axis=0)), dates, columns=["A", "B"]
    )
    frame.iloc[last:, 0] = np.nan
    daily = Market.from_prices(frame, cash_rate=0.0, delisting_return={"A": -0.5})
    longer = resample(daily, frequency)
    rows = daily.dates.get_indexer(longer.dates, method="ffill")
    by_days = np.cumprod(1.0 + daily.returns, axis=0)[rows]
    value = np.cumprod(1.0 + longer.returns, axis=0)
    np.testing.assert_allclose(value, by_days / by_days[0], rtol=1e-12)


def test_features_that_were_there_are_those_of_the_last_close(
    make_market: Callable[..., Market],
) -> None:
    market = make_market(periods=60)
    own = dataclasses.replace(
        market, features=market.prices[:, :, None].astype(np.float32), feature_names=("level",)
    )
    weekly = resample(own, "weekly")
    np.testing.assert_array_equal(weekly.features[:, :, 0], weekly.prices.astype(np.float32))


def test_daily_is_the_market_itself_and_shorter_periods_are_refused(
    make_market: Callable[..., Market],
) -> None:
    market = make_market(periods=300)
    assert resample(market, "daily") is market
    monthly = resample(market, "monthly")
    with pytest.raises(SettingError, match="frequency 'weekly': prices has 12 periods a year"):
        resample(monthly, "weekly")
    with pytest.raises(SettingError, match="unknown frequency 'week'; did you mean 'weekly'"):
        resample(market, "week")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 complete monthly periods in 30 rows"):
        resample(market[:30], "monthly")


# ---- several calendars


def crypto_and_equity(n_days: int = 60) -> tuple[pd.DatetimeIndex, np.ndarray]:
    days = pd.date_range("2020-01-01", periods=n_days)
    price = 100.0 + np.arange(n_days)
    weekday = days.day_of_week < 5
    return days, np.column_stack([price, np.where(weekday, price, np.nan)])


def test_crypto_with_equities_needs_a_choice() -> None:
    days, prices = crypto_and_equity()
    with pytest.raises(DataError) as caught:
        shared_rows("mix", days, ["BTC", "SPY"], prices, None)
    assert "mix: calendars differ: 'BTC' trades at weekends, 'SPY' on none of 16 weekend" in str(
        caught.value
    )
    assert "set calendar to inner" in str(caught.value)
    weekday = np.asarray(days.day_of_week < 5)
    for calendar in ("inner", "SPY"):
        rows = shared_rows("mix", days, ["BTC", "SPY"], prices, calendar)
        np.testing.assert_array_equal(rows, weekday)
    for calendar in ("outer", "BTC"):
        assert shared_rows("mix", days, ["BTC", "SPY"], prices, calendar).all()
    with pytest.raises(SettingError, match="unknown calendar 'iner'; did you mean 'inner'"):
        shared_rows("mix", days, ["BTC", "SPY"], prices, "iner")


def test_one_calendar_with_holes_needs_no_choice() -> None:
    days = pd.bdate_range("2020-01-01", periods=60)
    prices = np.full((60, 2), 5.0)
    prices[7, 1] = np.nan
    assert shared_rows("one", days, ["A", "B"], prices, None).all()
    assert shared_rows("one", days, ["A", "B"], prices, "inner").sum() == 59


def test_inner_rows_depend_on_the_past_alone() -> None:
    days, prices = crypto_and_equity()
    prices[30:, 1] = np.nan  # the equity is delisted
    prices[:10, 0] = np.nan  # the coin is listed late
    whole = shared_rows("mix", days, ["BTC", "SPY"], prices, "inner")
    for t in range(2, 60):
        cut = shared_rows("mix", days[:t], ["BTC", "SPY"], prices[:t], "inner")
        np.testing.assert_array_equal(cut, whole[:t])
    assert whole[40:].all()  # six rows after its last price it no longer counts
    assert not whole[[3, 4]].any()  # a weekend before the coin


def test_weekends_count_only_within_an_assets_life() -> None:
    days, prices = crypto_and_equity()
    prices[20:, 1] = np.nan  # weekend days 3, 4, 10, 11, 17, 18 are within its life
    often, never, seen = weekend_traders(days, np.isfinite(prices))
    assert often.tolist() == [True, False]
    assert never.tolist() == [False, True]
    assert seen.tolist() == [
        17,
        6,
    ]  # to the 29th of February; the equity leaves on the 20th of January


def put_csv(folder: Path) -> Path:
    days, prices = crypto_and_equity()
    path = folder / "mix.csv"
    pd.DataFrame(prices, days, ["BTC", "SPY"]).to_csv(path, index_label="date")
    return path


def test_a_file_of_both_needs_a_choice(tmp_path: Path) -> None:
    path = put_csv(tmp_path)
    with pytest.raises(InputError, match=r"mix\.csv: calendars differ.*set calendar to inner"):
        load_market("files", path=path)
    inner = load_market("files", path=path, calendar="inner")
    assert (inner.dates.day_of_week < 5).all()
    outer = load_market("files", path=path, calendar="outer")
    assert outer.n_periods == 60
    assert any("carried forward" in note for note in outer.notes)


def test_frequency_at_load_builds_features_from_the_longer_periods() -> None:
    weekly = load_market("multi_asset", frequency="weekly", features=["return(4)", "term_spread"])
    raw = load_market("multi_asset", features=["return"])
    prices = resample(raw, "weekly").prices
    np.testing.assert_allclose(weekly.features[0, :, 0], prices[4] / prices[0] - 1, rtol=1e-5)
    assert simple_returns(prices)[5] == pytest.approx(weekly.returns[1])
    assert (weekly.dates.day_of_week == 4).all()
