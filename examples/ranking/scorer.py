"""The model: a logistic regression on what is known of user and item and on all products of the two, as an ONNX graph.

Without the products every user would see the same order: what is known of a user alone moves all its candidates alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from features import ITEM, SLOT, USER
from sklearn.linear_model import LogisticRegression

__all__ = ["chances", "fit", "to_onnx"]

#: Strength of the penalty. Of 0.001, 0.003, 0.01, 0.03, 0.1 this one has the best cross-validated likelihood, by very little.
INVERSE_PENALTY = 0.01


def fit(rows: np.ndarray, clicks: Any) -> LogisticRegression:
    return LogisticRegression(C=INVERSE_PENALTY, solver="newton-cg").fit(_crossed(rows), clicks)


def chances(model: LogisticRegression, users: np.ndarray, slots: np.ndarray, items: np.ndarray) -> np.ndarray:
    """[users, items]: the probability of a click, of every user (in a slot) on every item."""
    alone, products = np.split(model.coef_[0], [len(USER) + len(ITEM) + len(SLOT)])
    of_user, of_item, of_slot = np.split(alone, [len(USER), len(USER) + len(ITEM)])
    tastes = users @ products.reshape(len(USER), len(ITEM)) + of_item
    logits = (users @ of_user + slots @ of_slot + model.intercept_)[:, None] + tastes @ items.T
    return 1 / (1 + np.exp(-logits))


def to_onnx(model: LogisticRegression) -> Any:
    """The same, as a graph: rows of plain features in, a probability a row out."""
    from onnx import TensorProto, helper, numpy_helper

    sizes = np.array([len(USER), len(ITEM), len(SLOT)], np.int64)
    constants = {
        "sizes": sizes, "last": np.array([2]), "middle": np.array([1]), "flat": np.array([-1, sizes[0] * sizes[1]]),
        "weights": model.coef_.T.astype(np.float32), "bias": model.intercept_.astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Split", ["X", "sizes"], ["user", "item", "slot"], axis=1),
        helper.make_node("Unsqueeze", ["user", "last"], ["user_column"]),
        helper.make_node("Unsqueeze", ["item", "middle"], ["item_row"]),
        helper.make_node("Mul", ["user_column", "item_row"], ["products"]),
        helper.make_node("Reshape", ["products", "flat"], ["crossed"]),
        helper.make_node("Concat", ["X", "crossed"], ["all"], axis=1),
        helper.make_node("Gemm", ["all", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["chances"]),
        helper.make_node("Squeeze", ["chances", "middle"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes, "click",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", int(sizes.sum())])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 10
    return made


def _crossed(rows: np.ndarray) -> np.ndarray:
    users, items = rows[:, : len(USER)], rows[:, len(USER) : len(USER) + len(ITEM)]
    return np.concatenate([rows, (users[:, :, None] * items[:, None, :]).reshape(len(rows), -1)], axis=1)
