"""The cache of built features: same numbers, found again by content, damage noticed."""

import dataclasses
import functools
import importlib
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from market import DataError, Market
from market.features import FEATURES, FeatureSet, build_features

SPECS = ["return(5)", "rsi(3)", "macro('cpi')", "table('signal')", "volatility"]


@pytest.fixture
def tables(market: Market) -> dict[str, pd.DataFrame]:
    dates = pd.date_range("2014-01-01", "2016-01-01", freq="MS")
    cpi = pd.DataFrame({"date": dates, "published": dates, "value": np.arange(len(dates)) + 100.0})
    return {"cpi": cpi, "signal": cpi.assign(asset="A1", value=cpi["value"] ** 2)}


def same(one: FeatureSet, two: FeatureSet) -> bool:
    return (
        one.names == two.names
        and one.context_names == two.context_names
        and np.array_equal(one.features, two.features, equal_nan=True)
        and np.array_equal(one.context, two.context, equal_nan=True)
    )


def keys(folder: Path) -> set[str]:
    return {file.name.split(".")[0] for file in folder.iterdir()}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the feature "rsi" is computed."""
    calls: list[str] = []
    genuine = FEATURES["rsi"]

    @functools.wraps(genuine.function)
    def counting(market: Market, window: int = 14) -> np.ndarray:
        calls.append("rsi")
        return genuine.function(market, window)

    monkeypatch.setitem(FEATURES, "rsi", dataclasses.replace(genuine, function=counting))
    return calls


def test_the_second_time_nothing_is_computed(
    market: Market, tables: dict[str, pd.DataFrame], tmp_path: Path, counted: list[str]
) -> None:
    plain = build_features(market, SPECS, tables)
    first, second = (
        build_features(market, SPECS, tables, cache=tmp_path / "new" / "cache") for _ in range(2)
    )
    assert counted == ["rsi", "rsi"]
    assert same(plain, first) and same(plain, second)
    assert isinstance(first.features, np.memmap) and isinstance(second.features, np.memmap)
    assert second.features.dtype == np.float32 and second.features.flags.c_contiguous
    assert len(keys(tmp_path / "new" / "cache")) == 1
    assert not list((tmp_path / "new" / "cache").glob("*tmp*"))


def test_a_change_of_anything_builds_anew(
    market: Market, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    prices, sectors = market.prices.copy(), {"A0": "tech"}
    prices[-1, 0] *= 1.0 + 1e-9
    frame = pd.DataFrame(prices[:, :-1], market.dates, market.assets[:-1])
    moved = Market.from_prices(frame, cash_rate=0.02)
    other = tables | {"cpi": tables["cpi"].assign(value=tables["cpi"]["value"] + 1e-9)}
    for made in (
        (market, SPECS, tables),
        (moved, SPECS, tables),
        (dataclasses.replace(market, volume=np.ones_like(market.prices)), SPECS, tables),
        (dataclasses.replace(market, sectors=sectors), SPECS, tables),
        (market, SPECS[:-1], tables),
        (market, ["volatility(21)", *SPECS[:-1]], tables),
        (market, SPECS, other),
    ):
        before = len(keys(tmp_path))
        build_features(*made, cache=tmp_path)
        assert len(keys(tmp_path)) == before + 1
        build_features(*made, cache=tmp_path)
        assert len(keys(tmp_path)) == before + 1


@pytest.mark.parametrize("where", ["function", "module", "file"])
def test_a_users_function_is_never_stale(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    """Its result changes with its code, a module that it imports, and a file that it reads."""
    monkeypatch.syspath_prepend(tmp_path)
    number, own = tmp_path / "number.txt", tmp_path / "own.py"
    source = {
        "function": "def f(market):\n    return FACTOR * market.returns\n",
        "module": "import beside_own\ndef f(market):\n    return beside_own.K * market.returns\n",
        "file": "from pathlib import Path\ndef f(market):\n"
        f"    return float(Path({str(number)!r}).read_text()) * market.returns\n",
    }[where]
    for factor in ("2.0", "3.25"):
        own.write_text(source.replace("FACTOR", factor))
        (tmp_path / "beside_own.py").write_text(f"K = {factor}\n")
        number.write_text(factor)
        monkeypatch.delitem(sys.modules, "beside_own", raising=False)
        importlib.invalidate_caches()
        with caplog.at_level(logging.INFO, logger="market.features.cache"):
            built = build_features(market, ["rsi", f"{own}:f"], cache=tmp_path / "cache")
        expected = float(factor) * market.returns
        np.testing.assert_allclose(built.features[:, :, 1], expected, rtol=1e-6)
    assert f"features are not kept: '{own}:f' is a user's own function" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_a_function_that_a_user_registers_is_not_kept(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is made of is as little known as that of one given by its file."""
    for factor in (2.0, 3.0):
        added = dataclasses.replace(FEATURES["return"], function=lambda m, k=factor: k * m.returns)
        monkeypatch.setitem(FEATURES, "added", added)
        built = build_features(market, ["added"], cache=tmp_path)
        np.testing.assert_allclose(built.features[:, :, 0], factor * market.returns, rtol=1e-6)
    assert not keys(tmp_path)


@pytest.mark.parametrize("part", ["features.npy", "context.npy", "json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damage_is_noticed_and_mended(
    market: Market,
    tables: dict[str, pd.DataFrame],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    part: str,
    damage: str,
) -> None:
    plain = build_features(market, SPECS, tables, cache=tmp_path)
    expected = plain._replace(features=np.array(plain.features), context=np.array(plain.context))
    del plain
    (file,) = tmp_path.glob(f"*.{part}")
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x5A]) + content[middle + 1 :]
        file.write_bytes({"flip": flipped, "cut": content[:-9], "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        mended = build_features(market, SPECS, tables, cache=tmp_path)
    assert same(expected, mended)
    assert ("is damaged and built anew" in caplog.text) == ((part, damage) != ("json", "gone"))
    (file,) = tmp_path.glob(f"*.{part}")
    assert file.read_bytes() == content


def test_what_is_read_back_can_be_written_to_without_harm(market: Market, tmp_path: Path) -> None:
    specs = ["return(5)", "volatility"]
    build_features(market, specs, cache=tmp_path)
    built = build_features(market, specs, cache=tmp_path)
    expected = np.array(built.features)
    built.features[:] = 7.0
    again = build_features(market, specs, cache=tmp_path)
    np.testing.assert_array_equal(again.features, expected)


def test_a_market_keeps_the_mapped_array(market: Market, tmp_path: Path) -> None:
    built = build_features(market, ["return"], cache=tmp_path)
    ready = dataclasses.replace(market, features=built.features, feature_names=built.names)
    assert np.shares_memory(ready.features, built.features)


def test_only_shared_features_or_none_are_kept_too(market: Market, tmp_path: Path) -> None:
    for specs in (["turbulence(20)"], []):
        built = [build_features(market, specs, cache=tmp_path) for _ in range(2)]
        assert same(*built) and built[1].features.shape == (*market.prices.shape, 0)
        assert built[1].context.shape == (market.n_periods, len(specs))


def test_a_cache_that_cannot_be_written_is_named(market: Market, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cache .*file: cannot be made: File exists"):
        build_features(market, ["rsi"], cache=tmp_path / "file")
