"""What PyTorch says of itself and of the card.

Runs in the environment with PyTorch: `python -m bench.torch_about cuda`, one line of JSON.
"""

import json
import sys
from typing import Any

# Not used here, but nothing works without it, and whoever asks wants to know.
import numpy as np
import torch


def describe(device: str) -> dict[str, Any]:
    """Versions, and the card if `device` names one that is there."""
    found: dict[str, Any] = {
        "version": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "cudnn": None,
        "threads": torch.get_num_threads(),
        "cards": 0,
        "card": None,
    }
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        try:
            found |= cards(torch.device(device).index or 0)
        except RuntimeError as error:
            # Libraries that do not fit each other, for one.
            found["trouble"] = str(error)
    return found


def cards(index: int) -> dict[str, Any]:
    """What CUDA has to say, and the card with that number if there is one."""
    found: dict[str, Any] = {
        "cudnn": torch.backends.cudnn.version(),
        "benchmark_limit": torch.backends.cudnn.benchmark_limit,
        "cards": torch.cuda.device_count(),
    }
    if index < found["cards"]:
        card = torch.cuda.get_device_properties(index)
        found["card"] = {
            "name": card.name,
            "capability": [card.major, card.minor],
            "memory": card.total_memory,
            "multiprocessors": card.multi_processor_count,
            "uuid": str(getattr(card, "uuid", "")) or None,
        }
    return found


if __name__ == "__main__":
    print(json.dumps(describe(sys.argv[1])))
