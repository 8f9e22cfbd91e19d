"""Files: atomic writes, and `.safetensors` without a package for it.

The format is a little-endian u64 with the length of a JSON header, the header, and the tensors'
bytes. Every environment here reads and writes it, the one without packages included.
"""

import json
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple


class Tensor(NamedTuple):
    """A tensor as it lies in the file: little-endian bytes, row-major."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it to `path` if all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes a `.safetensors` file, whole or not at all."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + len(tensor.data)
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in tensors.values():
            file.write(tensor.data)


def read_tensors(path: Path, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Reads these tensors of a `.safetensors` file, or all."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = {}
        for name in header if names is None else names:
            if name not in header:
                raise ValueError(f"{path} holds no tensor `{name}`")
            entry = header[name]
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            found[name] = Tensor(entry["dtype"], tuple(entry["shape"]), file.read(end - begin))
        return found


def read_tensor(path: Path, name: str) -> Tensor:
    """Reads one tensor of a `.safetensors` file."""
    return read_tensors(path, [name])[name]
