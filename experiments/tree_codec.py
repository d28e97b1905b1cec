"""Nested state as JSON, arrays and tensors, exactly and without pickles.

    {"rng": {..}, "held": tensor, "rows": [1, 2]}  <->  JSON, {"0": array, ..}, {"0": tensor, ..}

In the JSON a mapping is {"dict": [[key, value], ..]}, so that keys may be numbers and keep their
order; tuples, arrays, tensors and numbers that are not finite are marked in the same way.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, contiguous_format

from market.errors import DataError


class Encoded(NamedTuple):
    """The three parts of a tree."""

    json: Any
    arrays: dict[str, np.ndarray]
    tensors: dict[str, Tensor]


def encode(tree: Any) -> Encoded:
    """Take a tree apart.

    Raises:
        TypeError: If something in it is none of what the head of this module names.

    """
    parts = Encoded(None, {}, {})
    return parts._replace(json=_encode(tree, parts))


def _encode(node: Any, parts: Encoded) -> Any:
    if isinstance(node, np.generic):
        node = node.item()
    if node is None or isinstance(node, (bool, int, str)):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"float": repr(node)}
    if isinstance(node, Tensor):
        key = str(len(parts.tensors))
        parts.tensors[key] = node.detach().cpu().clone(memory_format=contiguous_format)
        return {"tensor": key}
    if isinstance(node, np.ndarray) and not node.dtype.hasobject:
        key = str(len(parts.arrays))
        parts.arrays[key] = node
        return {"array": key}
    if isinstance(node, dict):
        pairs = [[_encode(k, parts), _encode(v, parts)] for k, v in node.items()]
        return {"dict": pairs}
    if isinstance(node, (list, tuple)):
        items = [_encode(item, parts) for item in node]
        return items if isinstance(node, list) else {"tuple": items}
    raise TypeError(f"a state cannot hold {type(node).__name__}")


def decode(parts: Encoded) -> Any:
    """Put a tree together again; named tuples are plain ones.

    Raises:
        DataError: If the JSON is not what `encode` writes, or a part is missing.

    """
    try:
        return _decode(parts.json, parts)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the state cannot be read: {error!r}") from error


def _decode(node: Any, parts: Encoded) -> Any:
    if isinstance(node, list):
        return [_decode(item, parts) for item in node]
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "dict":
        return {_decode(k, parts): _decode(v, parts) for k, v in value}
    if kind == "tuple":
        return tuple(_decode(item, parts) for item in value)
    if kind == "float":
        return float(value)
    return parts.arrays[value] if kind == "array" else parts.tensors[value]
