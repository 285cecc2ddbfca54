"""From the log to numbers: what is known of a user and of an item, the same for training, for the judge and for the feature server.

The log has no user ids, only four attributes as codes; whoever shares all four is the same user here (265 of them).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["ITEM", "ITEMS", "SLOT", "USER", "item_table", "slot_table", "training_rows", "user_key", "user_table"]

ITEMS = 34
#: The attributes' values that at least two of a hundred impressions have; rarer ones are all zeros.
COMMON = {0: 2, 1: 3, 2: 7, 3: 6}
USER = [f"a{attribute}_{value}" for attribute, values in COMMON.items() for value in range(values)]
ITEM = ["rate", "size", *(f"kind1_{value}" for value in range(7)), *(f"kind3_{value}" for value in range(4))]
SLOT = ["slot_2", "slot_3"]
#: So many impressions of the average item are added to each item's own: a rate of three clicks in 600 says little.
PRIOR = 200


def user_key(log: pd.DataFrame) -> pd.Series:
    """A user's id: the four codes."""
    codes = [log[f"user_{attribute}"].astype(str) for attribute in COMMON]
    return codes[0].str.cat(codes[1:], sep=".")


def user_table(log: pd.DataFrame) -> np.ndarray:
    """[rows, USER]: which common values the user of each impression has."""
    return np.stack([log[f"user_{a}"] == value for a, values in COMMON.items() for value in range(values)], 1).astype(
        float
    )


def item_table(log: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """[ITEMS, ITEM]: each item's click rate in this log (shrunk, as log odds to the mean), and what it is."""
    counts = log.groupby("item")["click"].agg(["sum", "size"]).reindex(range(ITEMS), fill_value=0)
    mean = max(log["click"].mean(), 1e-6) if len(log) else 1e-6
    rate = np.log((counts["sum"] + PRIOR * mean) / (counts["size"] + PRIOR) / mean)
    items = items.set_index("item").loc[range(ITEMS)]
    kinds = [items["kind_1"] == value for value in range(7)] + [items["kind_3"] == value for value in range(4)]
    return np.column_stack([rate, items["size"], *kinds]).astype(float)


def training_rows(log: pd.DataFrame, items: pd.DataFrame) -> np.ndarray:
    """[rows, USER + ITEM + SLOT]; an item's rate without the day of the impression, or a click would help to predict itself."""
    about = np.empty((len(log), len(ITEM)))
    for day in log["day"].unique():
        here = (log["day"] == day).to_numpy()
        about[here] = item_table(log[~here], items)[log["item"][here]]
    return np.column_stack([user_table(log), about, slot_table(log)])


def slot_table(log: pd.DataFrame) -> np.ndarray:
    """[rows, SLOT]: which of the three places it is; the first is none of these."""
    return np.column_stack([log["slot"] == 2, log["slot"] == 3]).astype(float)
