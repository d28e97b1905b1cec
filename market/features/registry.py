"""`FEATURES` by name: what each is, whom it is about, and what it needs.

A feature is a pure function of a raw `Market`, of tables where it reads any, and of rows <= t;
adding one is a function and an entry below.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from market.features import alternative, cross_section, fundamental, macro, sentiment, technical


@dataclass(frozen=True)
class Feature:
    """A named function of the past.

    Attributes:
        function: (market, parameters with defaults) -> (T, N), or (T,) when shared; nan where it
            is not known yet. With a `table`, (market, tables, parameters with defaults).
        shared: Whether it is one number for all assets, and so belongs to the context; None where
            the shape of its result says so.
        neutral: What stands in for assets that are not listed, not long enough, or unknown; None is
            the median of those that are known that day.
        needs: Panels of the market it reads, such as "volume"; neutral where they are unknown.
        table: Name of the table it reads, "*" where a parameter names it. Such a feature may know
            nothing of some assets.
        price_power: Prices times c give values times c ** price_power; 0 is free of scale.

    """

    function: Callable[..., np.ndarray]
    shared: bool | None = False
    neutral: float | None = 0.0
    needs: tuple[str, ...] = ()
    table: str = ""
    price_power: int = 0

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter names and their defaults."""
        signature = inspect.signature(self.function).parameters
        first = 2 if self.table else 1
        return {name: entry.default for name, entry in list(signature.items())[first:]}

    @property
    def formula(self) -> str:
        """The formula line of the function's docstring."""
        parts = (inspect.getdoc(self.function) or "").split("\n\n")
        return parts[1].replace("\n", " ") if len(parts) > 1 else ""


_FUNDAMENTAL: dict[str, Any] = {"table": "fundamentals", "neutral": None}

FEATURES: dict[str, Feature] = {
    "return": Feature(technical.past_return),
    "moving_average_ratio": Feature(technical.moving_average_ratio),
    "volatility": Feature(technical.volatility),
    "parkinson_volatility": Feature(technical.parkinson_volatility, needs=("highs", "lows")),
    "momentum": Feature(technical.momentum),
    "drawdown": Feature(technical.drawdown),
    "rsi": Feature(technical.relative_strength, neutral=50.0),
    "macd": Feature(technical.macd),
    "macd_histogram": Feature(technical.macd_histogram),
    "bollinger": Feature(technical.bollinger),
    "atr": Feature(technical.average_true_range, needs=("highs", "lows")),
    "volume_ratio": Feature(technical.volume_ratio, needs=("volume",)),
    "correlation": Feature(cross_section.correlation),
    "turbulence": Feature(cross_section.turbulence, shared=True),
    "price_to_earnings": Feature(fundamental.price_to_earnings, price_power=1, **_FUNDAMENTAL),
    "earnings_yield": Feature(fundamental.earnings_yield, price_power=-1, **_FUNDAMENTAL),
    "price_to_book": Feature(fundamental.price_to_book, price_power=1, **_FUNDAMENTAL),
    "earnings_growth": Feature(fundamental.earnings_growth, **_FUNDAMENTAL),
    "dividend_yield": Feature(fundamental.dividend_yield, price_power=-1, **_FUNDAMENTAL),
    "term_spread": Feature(macro.term_spread, shared=True),
    "treasury_yield": Feature(macro.treasury_yield, shared=True),
    "macro": Feature(macro.macro, shared=True, table="*"),
    "macro_change": Feature(macro.macro_change, shared=True, table="*"),
    "macro_zscore": Feature(macro.macro_zscore, shared=True, table="*"),
    "inflation": Feature(macro.inflation, shared=True, table="*"),
    "credit_spread": Feature(macro.credit_spread, shared=True, table="*"),
    "sentiment": Feature(sentiment.sentiment, shared=None, table="news"),
    "sentiment_dispersion": Feature(sentiment.sentiment_dispersion, shared=None, table="news"),
    "news_count": Feature(sentiment.news_count, shared=None, table="news"),
    "table": Feature(alternative.table, shared=None, neutral=None, table="*"),
}

DEFAULT_FEATURES = (
    "return",
    "return(5)",
    "return(20)",
    "return(60)",
    "moving_average_ratio(50)",
    "volatility(20)",
    "rsi(14)",
    "term_spread",
    "treasury_yield",
)


def listing() -> list[dict[str, str]]:
    """What `allocgym data features` shows: one row a feature, in the order of `FEATURES`.

    Returns:
        Keys name, parameters ("window=20"), formula, scope ("asset", "shared", or "by table"),
        needs ("highs, lows", "table fundamentals") and about (the first line of its docstring).

    """
    scopes = {False: "asset", True: "shared", None: "by table"}
    rows = []
    for name, feature in FEATURES.items():
        table = {"": "", "*": "a table"}.get(feature.table, f"table {feature.table}")
        rows.append(
            {
                "name": name,
                "parameters": ", ".join(f"{k}={v!r}" for k, v in feature.parameters.items()),
                "formula": feature.formula,
                "scope": scopes[feature.shared],
                "needs": ", ".join(filter(None, [*feature.needs, table])),
                "about": (inspect.getdoc(feature.function) or "").partition("\n")[0],
            }
        )
    return rows
