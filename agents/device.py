"""Where tensors live. Networks live on a device, the market's simulation in numpy on the host.

What crosses from one to the other on its way to the simulator goes through `to_host`, and nowhere
else: training itself moves nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from market import SettingError


def check_device(name: str) -> None:
    """Refuse what is no device of torch.

    Raises:
        SettingError: If torch knows no such device, or has none here.

    """
    try:
        if torch.empty(0, device=name).is_meta:
            raise NotImplementedError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise SettingError(
            f"device must be one of torch's that is here, got {name!r}: {reason}"
        ) from None


def to_host(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor, without its gradient, for the simulator."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
