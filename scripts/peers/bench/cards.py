"""The cards, by NVIDIA's own tool."""

import subprocess
from typing import Any

FIELDS = (
    "index",
    "uuid",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "power.limit",
    "clocks.max.sm",
    "clocks.sm",
    "temperature.gpu",
    "utilization.gpu",
)
WORDS = ("uuid", "name", "driver_version")
# A card with more to do than this, in percent, does not give times worth quoting.
BUSY = 5


def value(name: str, text: str) -> str | float | None:
    """A field as it is meant; None where the card does not say."""
    if name in WORDS:
        return text or None
    try:
        return float(text)
    except ValueError:
        return None


def parse(output: str) -> list[dict[str, Any]]:
    """Cards from lines of values between commas."""
    cards = []
    for line in output.splitlines():
        texts = [text.strip() for text in line.split(",")]
        if len(texts) == len(FIELDS):
            cards.append({name: value(name, text) for name, text in zip(FIELDS, texts)})
    return cards


def cards() -> list[dict[str, Any]]:
    """All that `nvidia-smi` shows; none without it."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse(done.stdout) if done.returncode == 0 else []


def this(found: list[dict[str, Any]], uuid: str | None) -> dict[str, Any] | None:
    """The card with that identity, or the only one."""
    for card in found:
        if uuid and card["uuid"] and card["uuid"].removeprefix("GPU-") == uuid:
            return card
    return found[0] if len(found) == 1 else None
