"""Virtual environments from the pinned requirements."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .cache import root
from .machine import say

HERE = Path(__file__).resolve().parent.parent


class NotInstalled(Exception):
    """An environment cannot be made; the text says why."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment and what goes into it."""

    name: str
    requirements: Path
    probe: str
    """An import that works once all is there."""
    oldest: tuple[int, int]
    """Pythons for which the pinned packages have wheels, from this one …"""
    newest: tuple[int, int] | None = None
    """… to this one."""

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return root() / self.name

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.directory / "bin" / "python"

    def ensure(self) -> Path:
        """Makes it unless it is there already, and gives its interpreter."""
        interpreter = self.interpreter()
        recipe = f"{interpreter}\n{self.requirements.read_text(encoding='utf-8')}"
        digest = hashlib.sha256(recipe.encode()).hexdigest()
        stamp = self.directory / "installed"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
            return self.python
        say(f"installing {self.requirements.name} into {self.directory} (a minute or two)")
        self.create(interpreter)
        log = root() / f"{self.name}-install.log"
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        # Only wheels: a source package would have to be compiled, with what no one pinned.
        self.attempt(
            [*pip, "--only-binary", ":all:", "--requirement", str(self.requirements)], log
        )
        self.attempt([str(self.python), "-c", self.probe], log)
        # Last, so that an interrupted installation counts as none.
        stamp.write_text(digest, encoding="utf-8")
        return self.python

    def create(self, interpreter: str) -> None:
        """The empty environment."""
        log = root() / f"{self.name}-install.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        try:
            self.attempt([interpreter, "-m", "venv", "--clear", str(self.directory)], log)
        except NotInstalled as error:
            raise NotInstalled(
                f"{error}; on Debian and Ubuntu `apt install python3-venv` may be missing"
            ) from error

    def interpreter(self) -> str:
        """A Python of a version that will do: this one, or one of that name in PATH."""
        last = self.newest or sys.version_info[:2]
        if self.oldest <= sys.version_info[:2] <= last:
            return sys.executable
        for minor in range(last[1], self.oldest[1] - 1, -1):
            found = shutil.which(f"python3.{minor}")
            # Version managers leave names in PATH behind which there is nothing.
            if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
                return found
        version = ".".join(map(str, self.oldest))
        wanted = f"Python {version}" + ("" if self.newest == self.oldest else " or newer")
        raise NotInstalled(
            f"{self.requirements.name} needs {wanted}; this is {sys.version.split()[0]}, "
            f"and PATH has no python{version} that starts"
        )

    @staticmethod
    def attempt(command: list[str], log: Path) -> None:
        """Runs a command into the log."""
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except OSError as error:
            raise NotInstalled(str(error)) from error
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
        if done.returncode:
            lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
            errors = [line for line in lines if line.startswith("ERROR:")]
            raise NotInstalled(f"{(errors or lines)[-1].removeprefix('ERROR: ')} (see {log})")


MAIN = Environment(
    "main",
    HERE / "requirements.txt",
    "import numpy, onnx, onnxruntime, openvino",
    (3, 11),
)
GPU = Environment(
    "gpu",
    HERE / "requirements-gpu.txt",
    "import numpy, torch",
    (3, 11),
    (3, 14),
)
DEEPSPARSE = Environment(
    "deepsparse",
    HERE / "requirements-deepsparse.txt",
    "import os; os.environ['NM_DISABLE_ANALYTICS'] = '1'; import deepsparse",
    (3, 11),
    (3, 11),
)
