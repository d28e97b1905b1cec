"""US Treasury par yields, and the total return of the bond and the bill they imply.

The yields are the US Treasury's daily par yield curve rates, quoted on a bond-equivalent basis: a
yield y is paid half-yearly, so a year grows by (1 + y / 2) ** 2 and d calendar days by
(1 + y / 2) ** (2 d / 365.25). They come from quotes of about 15:30 New York time.
"""

from __future__ import annotations

from importlib import resources

import numpy as np
import pandas as pd

DAYS_PER_HALF_YEAR = 365.25 / 2


def treasury_yields() -> pd.DataFrame:
    """Par yields as fractions a year, dates x maturities ("3m" .. "30y"); nan where unpublished."""
    path = resources.files("market").joinpath("data/us_treasury_par_yields.csv.gz")
    with resources.as_file(path) as file:
        return pd.read_csv(file, index_col="date", parse_dates=["date"], compression="gzip") / 100.0


def effective_annual(bond_equivalent: pd.Series) -> pd.Series:
    """Bond-equivalent yields as growth a year: (1 + y / 2) ** 2 - 1."""
    return (1.0 + bond_equivalent / 2.0) ** 2 - 1.0


def par_bond_index(yields: pd.Series, years: float) -> pd.Series:
    """Value of 1 kept in a par bond of constant maturity, bought anew each day, shape (T,).

    Yesterday a bond with coupon c = y[t-1] costs 1. After d calendar days, f = d / 182.625 of a
    coupon period, today's yield y = y[t] prices it, coupon accrued so far included, at

        1 + R[t] = sum_k (c / 2) (1 + y / 2) ** (f - k) + (1 + y / 2) ** (f - n),   k = 1 .. n
                 = (1 + y / 2) ** f * (c / y + (1 - c / y) * (1 + y / 2) ** -n)

    with n = 2 * `years` coupons left. The same yield is used for the bond a day shorter, so the
    gain from rolling down a steep curve is left out.

    Args:
        yields: Par yields of one maturity, fractions a year; dates without one are left out.
        years: Maturity of the bond when bought.

    Source: Tuckman & Serrat, Fixed Income Securities (2011), ch. 3.

    """
    known = yields.dropna()
    coupon, now = known.to_numpy()[:-1], known.to_numpy()[1:]
    days = np.diff(known.index.to_numpy()) / np.timedelta64(1, "D")
    discount = (1.0 + now / 2.0) ** (-2.0 * years)
    accrued = (1.0 + now / 2.0) ** (days / DAYS_PER_HALF_YEAR)
    growth = accrued * (coupon / now + (1.0 - coupon / now) * discount)
    return pd.Series(np.cumprod(np.concatenate([[1.0], growth])), index=known.index)
