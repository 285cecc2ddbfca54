"""The pipeline: tables for the feature server, a ranker, and what it would have earned on days that it has not seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from evaluation import best, estimates, mean
from features import ITEM, ITEMS, SLOT, USER, item_table, slot_table, training_rows, user_key, user_table
from scorer import chances, fit, to_onnx

import roblox_ml as rml

__all__ = ["NAME", "recommender"]

NAME = "fashion-ranking"
#: A visitor sees three items; ten of 34 is what a log of this size can say more about.
SHOWN, MORE = 3, 10


class Tables(NamedTuple):
    user_profile: rml.Dataset
    item_stats: rml.Dataset


class Judged(NamedTuple):
    metrics: rml.Metrics
    table: rml.Dataset


@rml.step(cpu=1, memory="1Gi")
def tables(data: rml.Dataset) -> Tables:
    """What the feature server holds: a row for each user and each item, by `key`."""
    log, items = data.to_pandas("log.parquet"), data.to_pandas("items.parquet")
    people = log.assign(key=user_key(log)).drop_duplicates("key")
    users = pd.DataFrame(user_table(people), columns=USER).assign(key=people["key"].to_numpy())
    stats = pd.DataFrame(item_table(log, items), columns=ITEM).assign(key=np.arange(ITEMS))
    return Tables(
        rml.Dataset.from_pandas(users, "user_profile.parquet"), rml.Dataset.from_pandas(stats, "item_stats.parquet")
    )


@rml.step(cpu=1, memory="1Gi")
def train(data: rml.Dataset) -> rml.Model:
    log, items = data.to_pandas("log.parquet"), data.to_pandas("items.parquet")
    rows = training_rows(log, items)
    model = fit(rows, log["click"])
    scorer = rml.Model.from_onnx(to_onnx(model), examples=rows[:8].astype(np.float32))
    # An unknown user has none of the common attributes; an unknown item is an average one.
    return scorer.ranking(
        views={
            "user_profile": {"of": "user", "features": dict.fromkeys(USER, 0.0), "ttl_s": 600},
            "item_stats": {"of": "item", "features": dict.fromkeys(ITEM, 0.0), "ttl_s": 60},
        },
        context=dict.fromkeys(SLOT, 0.0),  # nothing said: the first slot
        candidates="INT64",
        k=SHOWN,
    )


def unseen_days(log: pd.DataFrame, items: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """[impressions, items]: the chance of a click and the click rate of every item, by the logs of the other days."""
    ours, popular = np.empty((len(log), ITEMS)), np.empty((len(log), ITEMS))
    for day in sorted(log["day"].unique()):
        unseen = (log["day"] == day).to_numpy()
        known, asked = log[~unseen], log[unseen]
        about = item_table(known, items)
        model = fit(training_rows(known, items), known["click"])
        ours[unseen] = chances(model, user_table(asked), slot_table(asked), about)
        popular[unseen] = about[:, 0]
    return ours, popular


def log_loss(clicks: pd.Series, chance: np.ndarray) -> float:
    return float(-np.mean(np.where(clicks == 1, np.log(chance), np.log(1 - chance))))


@rml.step(cpu=1, memory="2Gi")
def judge(data: rml.Dataset) -> Judged:
    """What the ranker, and what simpler policies, would have earned; each day by what the other days taught."""
    log, items = data.to_pandas("log.parquet"), data.to_pandas("items.parquet")
    ours, popular = unseen_days(log, items)
    everywhere = np.arange(len(log))
    metrics = {
        "log_loss": log_loss(log["click"], ours[everywhere, log["item"]]),
        "log_loss_of_the_mean": log_loss(log["click"], np.full(len(log), log["click"].mean())),
    }
    found = []
    for logged in ("random", "bts"):
        here = np.flatnonzero(log["policy"] == logged)
        part, mine = log.iloc[here], ours[here]
        shown, rows = part["item"].to_numpy(), np.arange(len(part))
        reward, propensity = part["click"].to_numpy(float), part["propensity"].to_numpy(float)
        about = {"log": logged, "policy": f"{logged}, as it was", "clicks": int(reward.sum()), "rows": len(part)}
        found.append(about | {"IPS": str(mean(reward))})
        policies = {"one of all (uniform)": np.full(mine.shape, 1 / ITEMS)}
        for k in (SHOWN, MORE):
            policies |= {f"the {k} most popular": best(popular[here], k), f"our {k} best": best(mine, k)}
        for name, chance in policies.items():
            weight = chance[rows, shown] / propensity
            values = estimates(reward, weight, mine[rows, shown], (chance * mine).sum(axis=1))
            worth = round(weight.sum() ** 2 / np.square(weight).sum())
            about = {"log": logged, "policy": name, "clicks": int(reward[weight > 0].sum()), "rows": worth}
            found.append(about | {estimator: str(value) for estimator, value in values.items()})
            if logged == "random" and name == f"our {SHOWN} best":
                # Both on the same impressions: the difference is less uncertain than each alone.
                lift = mean(weight * reward - reward)
                metrics |= {"lift": 1000 * lift.estimate, "lift_low": 1000 * lift.low, "lift_high": 1000 * lift.high}
    return Judged(rml.Metrics(**metrics), rml.Dataset.from_pandas(pd.DataFrame(found).fillna("")))


@rml.pipeline
def recommender():
    data = rml.dataset("open-bandit-men")
    tables(data)
    ranker = train(data)
    judged = judge(data)
    # So few clicks cannot show that it is better; what is surely worse than showing anything at all is not let through.
    rml.register(ranker, name=NAME, metrics=judged.metrics, gate=rml.gate(lift_high=0.0), tags={"task": "ranking"})
