"""Features of a day, kept beside the notebook because two notebooks use them."""

from __future__ import annotations

import numpy as np
import pandas as pd

HOLIDAYS = ("2013-01-01", "2013-05-27", "2013-07-04", "2013-09-02", "2013-11-28", "2013-12-25")


def days_to_holiday(dates: pd.Series) -> np.ndarray:
    """Days to the nearest holiday, at most 7."""
    holidays = pd.to_datetime(list(HOLIDAYS)).to_numpy()
    gaps = np.abs(dates.to_numpy()[:, None] - holidays[None, :]).min(axis=1)
    return np.minimum(gaps / np.timedelta64(1, "D"), 7.0)


def add_calendar(frame: pd.DataFrame) -> pd.DataFrame:
    """Weekday, season as a circle, distance to a holiday."""
    dates = pd.to_datetime(frame["date"])
    angle = 2 * np.pi * dates.dt.dayofyear / 365.25
    return frame.assign(
        weekday=dates.dt.dayofweek,
        weekend=(dates.dt.dayofweek >= 5).astype(int),
        season_sin=np.sin(angle),
        season_cos=np.cos(angle),
        holiday=days_to_holiday(dates),
    )
