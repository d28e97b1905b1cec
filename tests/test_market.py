"""`Market`: every rule is enforced with one line that names the place; slices are what they say."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from envs import PortfolioEnv
from market import DataError, Market, SettingError
from market.returns import accrued_cash, simple_returns

DATES = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-06", "2020-01-07"])
PRICES = np.array([[10.0, 20], [11, 19], [12, 18], [13, 19], [12.5, 20]])


def make(**changes: Any) -> Market:
    return Market(**({"dates": DATES, "assets": ("A", "B"), "prices": PRICES} | changes))


def spoilt(panel: np.ndarray, row: int, column: int, value: float) -> np.ndarray:
    panel = panel.copy()
    panel[row, column] = value
    return panel


@pytest.fixture
def market() -> Market:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        np.exp(rng.normal(0, 0.02, size=(50, 3)).cumsum(0)),
        pd.bdate_range("2020-01-01", periods=50),
        ["A", "B", "C"],
    )
    return Market.from_prices(
        frame,
        cash_rate=0.03,
        features=rng.normal(size=(50, 4, 2)),
        feature_names=("f", "g"),
        context=rng.normal(size=(50, 1)),
        context_names=("c",),
        volume=rng.uniform(size=(50, 4)),
        sectors={"A": "x"},
        name="made",
        notes=("a note",),
    )


# ---- construction


def test_prices_alone_make_a_market() -> None:
    made = make()
    expected = [[0.0, 0.0], [0.1, -0.05], [1 / 11, -1 / 19], [1 / 12, 1 / 18], [-0.5 / 13, 1 / 19]]
    np.testing.assert_allclose(made.returns, expected, rtol=1e-12)
    assert made.feature_names == ("return",)
    np.testing.assert_array_equal(made.features[:, :, 0], made.returns.astype(np.float32))
    assert made.context.shape == (5, 0)
    assert made.tradable.all() and not made.risk_free.any()
    assert (made.n_periods, len(made), made.n_assets, made.has_cash) == (5, 5, 2, False)
    assert made.features.dtype == np.float32 and made.prices.dtype == np.float64


def test_returns_are_zero_where_a_price_is_missing() -> None:
    prices = spoilt(spoilt(PRICES, 0, 0, np.nan), 4, 1, np.nan)
    made = make(prices=prices)
    assert made.returns[1, 0] == 0 and made.returns[4, 1] == 0
    assert made.returns[2, 0] == pytest.approx(1 / 11)
    np.testing.assert_array_equal(made.tradable, np.isfinite(prices))
    np.testing.assert_array_equal(simple_returns(prices), made.returns)


def test_arrays_cannot_be_written(market: Market) -> None:
    for key in ("prices", "returns", "features", "context", "tradable", "risk_free", "volume"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(market, key)[0] = 0
        with pytest.raises(ValueError, match="read-only"):
            getattr(market[5:], key)[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        market.name = "other"  # type: ignore[misc]


def test_the_callers_array_stays_writeable_and_apart() -> None:
    given = {key: PRICES.copy() for key in ("prices", "volume", "highs")}
    given |= {"tradable": np.ones((5, 2), bool), "risk_free": np.full(5, 0.1)}
    made = make(**given)
    for key, panel in given.items():
        before = getattr(made, key).copy()
        panel[:] = 0
        np.testing.assert_array_equal(getattr(made, key), before)


def test_replace_validates_again(market: Market) -> None:
    features = np.zeros((50, 4, 1))
    other = dataclasses.replace(market, features=features, feature_names=("zero",))
    assert other.feature_names == ("zero",)
    np.testing.assert_array_equal(other.prices, market.prices)
    with pytest.raises(DataError, match=r"features must have shape \(50, 4, 2\), got \(50, 4, 1\)"):
        dataclasses.replace(market, features=features)
    sliced = market[10:20]
    np.testing.assert_array_equal(dataclasses.replace(sliced, name="x").returns, sliced.returns)


# ---- rules


FEATURES = np.zeros((5, 2, 1))

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "dates that fall": (
        {"dates": DATES[[0, 2, 1, 3, 4]]},
        "market: row 2: date 2020-01-02 is before the row above",
    ),
    "a date twice": ({"dates": DATES[[0, 1, 1, 3, 4]]}, "row 2: date 2020-01-02 appears twice"),
    "numbers for dates": ({"dates": pd.RangeIndex(5)}, "the index must hold dates, got numbers"),
    "words for dates": ({"dates": pd.Index([*"abcde"])}, "the index must hold dates"),
    "a missing date": ({"dates": DATES.insert(1, pd.NaT)[:5]}, "row 1: the date is missing"),
    "a time zone": ({"dates": DATES.tz_localize("UTC")}, "dates carry the time zone UTC"),
    "one date": ({"dates": DATES[:1], "prices": PRICES[:1]}, "needs at least 2 dates, got 1"),
    "no asset": ({"assets": (), "prices": PRICES[:, :0]}, "needs at least 1 asset, got none"),
    "an asset twice": ({"assets": ("A", "A")}, "asset 'A' appears twice, at 0 and 1"),
    "an empty name": ({"assets": ("A", " ")}, "asset 1 has an empty name"),
    "cash first": ({"assets": ("cash", "B")}, "asset 'cash' must be the last one"),
    "prices of another shape": (
        {"prices": PRICES[:4]},
        "prices must have shape (5, 2), got (4, 2)",
    ),
    "a negative price": (
        {"prices": spoilt(PRICES, 2, 1, -3.2)},
        "column 'B', row 2 (2020-01-03): price -3.2 must be finite and > 0",
    ),
    "a price of zero": ({"prices": spoilt(PRICES, 2, 1, 0)}, "row 2 (2020-01-03): price 0.0 must"),
    "an infinite price": (
        {"prices": spoilt(PRICES, 4, 0, np.inf)},
        "column 'A', row 4 (2020-01-07)",
    ),
    "a hole": (
        {"prices": spoilt(PRICES, 2, 1, np.nan)},
        "column 'B', row 2 (2020-01-03): price is missing (nan) inside the asset's history",
    ),
    "an asset without prices": (
        {"prices": np.column_stack([PRICES[:, 0], np.full(5, np.nan)])},
        "column 'B' has no price at all",
    ),
    "cash that starts late": (
        {"assets": ("A", "cash"), "prices": spoilt(PRICES, 0, 1, np.nan)},
        "column 'cash' must have a price on every date",
    ),
    "tradable without price": (
        {"prices": spoilt(PRICES, 0, 1, np.nan), "tradable": np.ones((5, 2), bool)},
        "column 'B', row 0 (2020-01-01): tradable without a price",
    ),
    "returns that disagree": (
        {"returns": spoilt(simple_returns(PRICES), 3, 0, 0.5)},
        "column 'A', row 3 (2020-01-06): return 0.5 disagrees with the prices",
    ),
    "a return below -1": (
        {"returns": spoilt(simple_returns(PRICES), 0, 0, -1.5)},
        "column 'A', row 0 (2020-01-01): return -1.5 must be finite, >= -1",
    ),
    "a return that is nan": (
        {"returns": spoilt(simple_returns(PRICES), 3, 0, np.nan)},
        "row 3 (2020-01-06): return nan must be finite",
    ),
    "a feature that is nan": (
        {
            "features": np.where(np.arange(5) == 3, np.nan, 0.0)[:, None, None] + FEATURES,
            "feature_names": ("f",),
        },
        "column 'A', row 3 (2020-01-06): feature 'f' is nan, not finite",
    ),
    "an unnamed feature": (
        {"features": FEATURES},
        "features must have shape (5, 2, 0), got (5, 2, 1)",
    ),
    "a feature twice": (
        {"features": np.zeros((5, 2, 2)), "feature_names": ("f", "f")},
        "feature 'f' appears twice, at 0 and 1",
    ),
    "context that is infinite": (
        {"context": np.array([[0, 0, np.inf, 0, 0.0]]).T, "context_names": ("c",)},
        "context 'c', row 2 (2020-01-03): value is not finite",
    ),
    "context of another length": (
        {"context": np.zeros((4, 1)), "context_names": ("c",)},
        "context must have shape (5, 1), got (4, 1)",
    ),
    "negative volume": (
        {"volume": spoilt(PRICES, 1, 0, -5)},
        "column 'A', row 1 (2020-01-02): volume -5.0 must be finite and >= 0",
    ),
    "a close of nothing": ({"closes": spoilt(PRICES, 1, 1, 0.0)}, "closes 0.0 must be finite"),
    "infinite highs": ({"highs": spoilt(PRICES, 1, 0, np.inf)}, "highs inf must be finite"),
    "opens of another shape": (
        {"opens": PRICES[:, :1]},
        "opens must have shape (5, 2), got (5, 1)",
    ),
    "risk_free of another length": (
        {"risk_free": np.zeros(4)},
        "risk_free must have shape (5,), got (4,)",
    ),
    "risk_free that is nan": ({"risk_free": np.full(5, np.nan)}, "risk_free must be finite"),
    "sectors of strangers": ({"sectors": {"Z": "x"}}, "sectors name unknown assets ['Z']"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_broken_rule_is_one_line_that_names_the_place(fault: str) -> None:
    changes, words = FAULTS[fault]
    with pytest.raises(DataError) as caught:
        make(**changes)
    assert str(caught.value).startswith("market: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_volume_and_opens_are_allowed() -> None:
    made = make(volume=spoilt(PRICES, 2, 1, np.nan), opens=spoilt(PRICES, 0, 0, np.nan))
    assert made.volume is not None and np.isnan(made.volume[2, 1])


# ---- from_prices


def test_cash_accrues_by_calendar_days_by_hand() -> None:
    frame = pd.DataFrame(PRICES, DATES, ["A", "B"])
    made = Market.from_prices(frame, cash_rate=0.05)
    days = [1, 1, 3, 1]
    expected = [0.0] + [1.05 ** (d / 365) - 1 for d in days]
    assert made.assets == ("A", "B", "cash") and made.has_cash
    np.testing.assert_allclose(made.risk_free, expected, rtol=1e-12)
    np.testing.assert_allclose(made.returns[:, -1], expected, rtol=1e-9)
    assert made.prices[-1, -1] == pytest.approx(1.05 ** (6 / 365), rel=1e-12)


def test_cash_earns_the_rate_known_the_day_before() -> None:
    rates = pd.Series(
        [0.01, 0.02, 0.04, 0.9],
        pd.DatetimeIndex(["2019-12-30", "2020-01-02", "2020-01-05", "2020-01-07"]),
    )
    earned = accrued_cash(DATES, rates)
    known = [0.01, 0.02, 0.02, 0.04]  # on 1, 2, 3 and 6 January; the 5th is a Sunday
    expected = [0.0] + [(1 + r) ** (d / 365) - 1 for r, d in zip(known, [1, 1, 3, 1], strict=True)]
    np.testing.assert_allclose(earned, expected, rtol=1e-12)


def test_no_cash_at_all() -> None:
    made = Market.from_prices(pd.DataFrame(PRICES, DATES, ["A", "B"]), cash_rate=None)
    assert made.assets == ("A", "B") and not made.risk_free.any()


def test_text_dates_are_read() -> None:
    frame = pd.DataFrame(PRICES, [f"{date:%Y-%m-%d}" for date in DATES], ["A", "B"])
    assert Market.from_prices(frame).dates.equals(DATES)


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        (["A", "cash"], {}, "column 'cash' clashes with the cash of cash_rate=0.0"),
        (["A", "A"], {}, "asset 'A' appears twice, at 0 and 1"),
        (
            ["A", "B"],
            {"cash_rate": -2.0},
            "cash_rate: must be a finite fraction a year > -1, got -2.0 on 2020-01-01",
        ),
        (["A", "B"], {"cash_rate": np.inf}, "cash_rate: must be a finite fraction"),
        (["A", "B"], {"cash_rate": np.nan}, "cash_rate: must be a finite fraction"),
        (["A", "B"], {"cash_rate": "3%"}, "cash_rate: must be a number, a series by date, or None"),
        (
            ["A", "B"],
            {"cash_rate": pd.Series([0.01], DATES[2:3])},
            "cash_rate: no rate is known on 2020-01-01",
        ),
        (["A", "B"], {"cash_rate": True}, "cash_rate: must be a number, a series by date, or None"),
        (
            ["A", "B"],
            {"cash_rate": pd.Series([0.01, 0.02], DATES[[0, 0]])},
            "cash_rate: date 2020-01-01 appears twice",
        ),
        (
            ["A", "B"],
            {"cash_rate": pd.Series([0.01, 0.02])},
            "cash_rate: a series must hold numbers by date, got float64 by RangeIndex",
        ),
        (["A", "../../x"], {}, "'../../x' is no name for an asset"),
        (["A", "=cmd()"], {}, "'=cmd()' is no name for an asset"),
        (["A", "<script>"], {}, "'<script>' is no name for an asset"),
        (["A", "x" * 300], {}, "is no name for an asset; use 1 to 64 letters"),
        (["A", ""], {}, "asset 1 has an empty name"),
    ],
)
def test_a_bad_table_or_rate_is_named(
    columns: list[str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError) as caught:
        Market.from_prices(pd.DataFrame(PRICES, DATES, columns), **options)
    assert words in str(caught.value)


def test_a_column_of_text_is_named() -> None:
    frame = pd.DataFrame({"A": [*"abcde"], "B": PRICES[:, 1]}, DATES)
    with pytest.raises(DataError, match="prices: column 'A' must hold numbers"):
        Market.from_prices(frame)


@pytest.mark.parametrize("table", [PRICES, PRICES.tolist(), pd.Series(PRICES[:, 0], DATES)])
def test_what_is_no_table_is_named(table: Any) -> None:
    with pytest.raises(DataError, match="prices: must be a pandas DataFrame of dates x assets"):
        Market.from_prices(table)


@pytest.mark.parametrize("values", [[True, False] * 2 + [True], [1j] * 5])
def test_prices_are_real_numbers(values: list[Any]) -> None:
    with pytest.raises(DataError, match="column 'A' must hold numbers, got"):
        Market.from_prices(pd.DataFrame({"A": values, "B": PRICES[:, 1]}, DATES))


def test_names_that_traders_use_are_names() -> None:
    names = ["BRK.B", "^GSPC", "EURUSD=X", "S&P 500", "BTC-USD", "7203.T", "Crédit Agricole", "_x"]
    frame = pd.DataFrame(np.tile(PRICES[:, :1], len(names)), DATES, names)
    assert Market.from_prices(frame).assets == (*names, "cash")


@pytest.mark.parametrize("key", ["assets", "feature_names", "context_names"])
def test_one_text_is_not_a_list_of_names(key: str) -> None:
    with pytest.raises(DataError, match=f"market: {key} must be a list of names, got 'AB'"):
        make(**{key: "AB"})


@pytest.mark.parametrize("paid", [-1.5, "a", True, np.nan])
def test_a_delisting_return_is_a_number_of_at_least_minus_one(paid: Any) -> None:
    gone = pd.DataFrame(spoilt(PRICES, 4, 0, np.nan), DATES, ["A", "B"])
    with pytest.raises(SettingError, match="delisting_return: must be a number >= -1, got"):
        Market.from_prices(gone, delisting_return={"A": paid})


def test_a_column_without_a_price_is_named_even_where_delistings_are_paid() -> None:
    frame = pd.DataFrame({"A": PRICES[:, 0], "B": np.nan}, DATES)
    with pytest.raises(DataError, match="column 'B' has no price at all"):
        Market.from_prices(frame, delisting_return=-0.3)


def test_the_fingerprint_covers_all_that_changes_a_result(market: Market) -> None:
    prices = market.prices
    whole = dataclasses.replace(
        market,
        volume=np.full(prices.shape, 5.0),
        opens=prices,
        highs=prices,
        lows=prices,
        closes=prices,
        sectors={market.assets[0]: "x"},
    )
    seen = {market.fingerprint(), whole.fingerprint()}
    features = whole.features.copy()
    features[3, 0, 0] += 1.0
    changes: dict[str, Any] = {
        "volume": np.full(prices.shape, 6.0),
        "opens": prices * 1.01,
        "highs": prices * 1.01,
        "lows": prices * 0.99,
        "closes": prices * 1.02,
        "risk_free": whole.risk_free + 1e-6,
        "tradable": spoilt(whole.tradable, 3, 0, False),
        "context": np.ones((market.n_periods, 1)),
        "features": features,
        "sectors": {market.assets[0]: "y"},
        "dates": whole.dates + pd.Timedelta(hours=1),
    }
    changes["context_names"] = ("one",)
    one_by_one = [{key: value} for key, value in changes.items() if "context" not in key]
    one_by_one.append({key: changes[key] for key in ("context", "context_names")})
    one_by_one += [
        {"volume": None},
        {"opens": None},
        {"highs": None},
        {"lows": None},
        {"closes": None},
    ]
    for change in one_by_one:
        other = dataclasses.replace(whole, **change).fingerprint()
        assert other not in seen, change.keys()
        seen.add(other)
    same = dataclasses.replace(whole, name="other", notes=("a note",))
    assert same.fingerprint() == whole.fingerprint()


# ---- slices


def test_rows_are_half_open_and_dates_inclusive(market: Market) -> None:
    assert market[5:9].dates.equals(market.dates[5:9])
    assert market[-5:].dates.equals(market.dates[45:])
    first, last = market.dates[5], market.dates[8]
    assert market[first:last].dates.equals(market.dates[5:9])
    assert market[f"{first:%Y-%m-%d}" : f"{last:%Y-%m-%d}"].dates.equals(market.dates[5:9])
    weekend = market["2020-01-04":"2020-01-12"]
    assert [date.day for date in weekend.dates] == [6, 7, 8, 9, 10]


def test_a_slice_keeps_everything_in_step_and_its_true_first_return(market: Market) -> None:
    part = market[10:20]
    for key in ("prices", "returns", "features", "context", "volume", "tradable", "risk_free"):
        np.testing.assert_array_equal(getattr(part, key), getattr(market, key)[10:20])
    assert part.returns[0].all()
    assert (part.assets, part.sectors, part.name, part.notes) == (
        market.assets,
        market.sectors,
        "made",
        ("a note",),
    )


def test_upto_ends_with_the_row(market: Market) -> None:
    for t in (0, 17, 49):
        history = market.upto(t)
        assert history.n_periods == t + 1
        assert history.dates[-1] == market.dates[t]
        assert history.features.base is not None and len(history.features) == t + 1
    for t in (-1, 50):
        with pytest.raises(DataError, match=rf"row {t} is outside 0 .. 49"):
            market.upto(t)


def test_index_is_the_last_row_on_or_before(market: Market) -> None:
    assert market.index(market.dates[7]) == 7
    assert market.index("2020-01-05") == market.index("2020-01-03") == 2
    assert market.index(market.dates[-1]) == 49
    for outside in ("2019-12-31", "2020-03-11"):
        with pytest.raises(DataError, match=rf"date {outside} is outside the data \(2020-01-01 .."):
            market.index(outside)
    with pytest.raises(SettingError, match="'soon' is not a date"):
        market.index("soon")


@pytest.mark.parametrize("key", [slice(5, 5), slice(9, 5), slice(60, 70)])
def test_a_slice_without_rows_is_refused(market: Market, key: slice) -> None:
    with pytest.raises(DataError, match="made: no rows in"):
        market[key]


@pytest.mark.parametrize("key", [3, slice(0, 9, 2), "2020-01-03"])
def test_only_plain_slices_index_a_market(market: Market, key: Any) -> None:
    with pytest.raises(TypeError, match="plain slice"):
        market[key]


def test_split_is_chronological_and_complete(market: Market) -> None:
    parts = market.split("2020-01-31", "2020-02-14")
    assert [f"{part.dates[-1]:%m-%d}" for part in parts] == ["01-31", "02-14", "03-10"]
    joined = parts[0].dates.append([part.dates for part in parts[1:]])
    assert joined.equals(market.dates)
    np.testing.assert_array_equal(np.concatenate([p.returns for p in parts]), market.returns)


def test_split_with_history_leaves_the_first_return_ahead(market: Market) -> None:
    train, test = market.split("2020-01-31", history=4)
    assert train.dates.equals(market[:"2020-01-31"].dates)
    assert test.dates[4] == pd.Timestamp("2020-02-03")
    assert test.n_periods == 50 - train.n_periods + 4


@pytest.mark.parametrize(
    "ends", [("2020-02-14", "2020-01-31"), ("2020-01-31", "2020-01-31"), ("2020-03-10",)]
)
def test_a_split_with_an_empty_part_is_refused(market: Market, ends: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"part \d of split .* holds no period"):
        market.split(*ends)


# ---- odds and ends


@pytest.mark.parametrize(
    ("frequency", "count"), [("B", 252), ("D", 365), ("W", 52), ("ME", 12), ("QE", 4), ("YE", 1)]
)
def test_periods_per_year_follows_the_calendar(frequency: str, count: int) -> None:
    dates = pd.date_range("2000-01-01", periods=40, freq=frequency)
    assert make(dates=dates, prices=np.ones((40, 2))).periods_per_year == count


def test_fingerprints_tell_data_apart(market: Market) -> None:
    again = dataclasses.replace(market)
    assert market.fingerprint() == again.fingerprint()
    assert market[1:].fingerprint() != market.fingerprint()
    features = spoilt(market.features, 3, 1, 9.0)
    assert dataclasses.replace(market, features=features).fingerprint() != market.fingerprint()
    renamed = dataclasses.replace(market, assets=("A", "B", "D", "cash"))
    assert renamed.fingerprint() != market.fingerprint()


def test_repr_says_what_it_is(market: Market) -> None:
    assert repr(market) == (
        "Market('made', 50 periods 2020-01-01 .. 2020-03-10, 4 assets, 2 features, 1 context)"
    )


def test_a_delisting_return_is_earned_as_the_asset_leaves():
    """B's last price is on day 2; it loses 30 % on day 3, once, and is cash from then on."""
    frame = pd.DataFrame(
        {"A": [1.0, 1, 1, 1, 1], "B": [10.0, 11, 12, np.nan, np.nan]},
        pd.bdate_range("2020-01-01", periods=5),
    )
    market = Market.from_prices(frame, delisting_return={"B": -0.3})
    np.testing.assert_allclose(market.returns[:, 1], [0, 0.1, 1 / 11, -0.3, 0], atol=1e-15)
    np.testing.assert_array_equal(market.tradable[:, 1], [1, 1, 1, 0, 0])
    env = PortfolioEnv(market, lookback=1)
    env.reset(options={"weights": [0, 1, 0]})
    for _ in range(4):
        *_, info = env.step([0, 1, 0])
    assert info["value"] == pytest.approx(1.2 * 0.7)
    with pytest.raises(SettingError, match=r"delisting_return: must be a number >= -1, got -1\.5"):
        Market.from_prices(frame, delisting_return=-1.5)
    with pytest.raises(SettingError, match="delisting_return"):
        Market.from_prices(frame, delisting_return={"C": -0.5})
