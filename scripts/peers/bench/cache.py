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


def networks(seed: int, base: Path | None = None) -> Path:
    """The directory of the networks and images of a seed, in `base` instead of the usual place."""
    return (base or root()) / f"resnet50-v{GENERATOR}-seed{seed}"


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
        """Written last: sizes of the others, and how many weights are not zero."""
        return self.directory / f"{self.key}.json"

    def sizes(self, onnx: bool = True) -> dict[str, int]:
        """Bytes by file name."""
        paths = (self.weights, self.onnx) if onnx else (self.weights,)
        return {path.name: path.stat().st_size for path in paths}

    def whole(self, onnx: bool = True) -> bool:
        """Whether all that is needed is there as it was written."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return all(note.get(name) == size for name, size in self.sizes(onnx).items())
        except (OSError, ValueError):
            return False
