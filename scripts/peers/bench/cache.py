"""Where things lie between runs."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

# Raise it whenever other files would come out; older ones are then left alone and not used.
GENERATOR = 1


def root() -> Path:
    """The directory of everything here: `$XDG_CACHE_HOME/burn-sparse/peers`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "burn-sparse" / "peers"


def networks(seed: int) -> Path:
    """The directory of the networks and images of a seed."""
    return root() / f"resnet50-v{GENERATOR}-seed{seed}"


def images_path(directory: Path, batch: int) -> Path:
    """The file with a batch of images."""
    return directory / f"input-{batch}.safetensors"


@dataclass(frozen=True)
class Network:
    """The files of one network."""

    directory: Path
    key: str

    @property
    def weights(self) -> Path:
        """By torchvision's names, batch norms apart."""
        return self.directory / f"{self.key}.safetensors"

    @property
    def onnx(self) -> Path:
        """The same with batch norms folded."""
        return self.directory / f"{self.key}.onnx"

    @property
    def note(self) -> Path:
        """Written last: sizes of the two others, and how many weights are not zero."""
        return self.directory / f"{self.key}.json"

    def sizes(self) -> dict[str, int]:
        """Bytes by file name."""
        return {path.name: path.stat().st_size for path in (self.weights, self.onnx)}

    def whole(self) -> bool:
        """Whether all is there as it was written."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return all(note.get(name) == size for name, size in self.sizes().items())
        except (OSError, ValueError):
            return False
