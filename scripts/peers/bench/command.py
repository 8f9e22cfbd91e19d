"""What the commands have in common: options, the lock, the networks, the files they leave."""

import argparse
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import cache, machine
from .environments import HERE
from .files import write_json, write_text
from .machine import say
from .runtimes import REPOSITORY, Failed, Job, Ours, build
from .variants import VARIANTS, Variant

# A machine with more to do than this does not give times worth quoting.
BUSY = 0.5


class Stop(Exception):
    """Nothing can be measured; the text says why and what to do."""


def positive(text: str) -> int:
    """A number of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def select(parser: argparse.ArgumentParser, runtimes: Iterable[str], batches: str) -> None:
    """Options for what to time; `batches` says what the usual ones are."""
    what = parser.add_argument_group("what to time")
    what.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        help="dense; percent of the weights pruned; 90 %% in blocks of 4 output channels "
        "(default: all)",
    )
    what.add_argument(
        "--batches",
        nargs="+",
        type=positive,
        default=[1, 16],
        metavar="N",
        help=f"images at a time (default: {batches})",
    )
    what.add_argument(
        "--only",
        nargs="+",
        choices=runtimes,
        default=list(runtimes),
        help="these runtimes and no others (default: all)",
    )


def turns(group: argparse._ArgumentGroup, repeat: int, warmup: str) -> None:
    """Options for how often to time."""
    group.add_argument(
        "--rounds",
        type=positive,
        default=3,
        metavar="N",
        help="how often all runtimes take their turn (default: %(default)s)",
    )
    group.add_argument(
        "--repeat",
        type=positive,
        default=repeat,
        metavar="N",
        help=f"timed runs in a turn, after {warmup} of warm-up (default: %(default)s)",
    )


def ours(parser: argparse.ArgumentParser) -> None:
    """Options of this project."""
    group = parser.add_argument_group("this project")
    group.add_argument(
        "--binary",
        type=Path,
        metavar="PATH",
        help="a built resnet50_infer (default: build it with cargo)",
    )
    group.add_argument(
        "--pack",
        choices=["auto", "thorough", "csr", "dense"],
        default="auto",
        help="how it stores layers (default: %(default)s)",
    )


def files(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Options for what is written."""
    group = parser.add_argument_group("files")
    group.add_argument("--json", type=Path, metavar="FILE", help="every number; kept up row by row")
    group.add_argument("--markdown", type=Path, metavar="FILE", help="the table and the remarks")
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of weights and images (default: 0)"
    )
    return group


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, nothing in it twice."""
    args = parser.parse_args()
    if args.binary and not args.binary.is_file():
        parser.error(f"--binary: there is no file {args.binary}")
    for name in ("variants", "batches", "only"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


@contextmanager
def alone() -> Iterator[None]:
    """Holds the cache's lock: two of these at once would spoil each other's times and files."""
    path = cache.root() / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Stop("another run of these scripts is under way: wait for its end") from error
        yield


def generate(
    python: Path, args: argparse.Namespace, base: Path | None = None, onnx: bool = True
) -> Path:
    """Writes the networks and images that are missing; gives their directory."""
    directory = cache.networks(args.seed, base)
    say(f"networks: {directory}")
    command = [str(python), "-m", "bench.generate", "--directory", str(directory)]
    command += ["--seed", str(args.seed), "--variants", *args.variants]
    command += ["--batches", *map(str, args.batches)]
    if not onnx:
        command.append("--no-onnx")
    done = subprocess.run(command, cwd=HERE, stdout=sys.stderr)
    if done.returncode:
        size = 200 if onnx else 100
        raise Stop(
            f"the networks could not be written, see above; each takes {size} MB in {directory}"
        )
    return directory


def this_project(args: argparse.Namespace, device: str = "flex", *features: str) -> Ours:
    """This project's runtime, built unless a binary was given."""
    try:
        if args.binary is None:
            say("building resnet50_infer (minutes, the first time)")
        return Ours((args.binary or build(*features)).resolve(), args.pack, device)
    except Failed as error:
        raise Stop(str(error)) from error


def jobs(
    args: argparse.Namespace, directory: Path, scratch: Path, threads: int | None
) -> Iterator[tuple[Variant, int, Job]]:
    """What is to be run: a row of the table each."""
    for key in args.variants:
        for batch in args.batches:
            network, images = cache.Network(directory, key), cache.images_path(directory, batch)
            yield VARIANTS[key], batch, Job(network, images, threads, args.repeat, scratch)


def warn_if_busy(host: dict[str, Any]) -> None:
    """Says so if others compute; what came before has loaded the machine too, so it is a hint."""
    if host["load"] > BUSY:
        say(f"warning: load average {host['load']:.1f}: times are off while others compute")


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def now() -> str:
    """The time, for the report."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def report(
    args: argparse.Namespace,
    fields: dict[str, Any],
    headline: str,
    rendered: str,
    notes: list[str],
    begun: str,
) -> None:
    """Writes the files that were asked for."""
    if args.json:
        head = {"begun": begun, "commit": machine.commit(REPOSITORY)}
        write_json(args.json, head | fields | {"remarks": notes})
    if args.markdown:
        lines = [headline, "", rendered]
        if notes:
            lines += ["", *(f"- {note}" for note in notes)]
        write_text(args.markdown, "\n".join(lines) + "\n")


def leave(main: Callable[[], int]) -> None:
    """Runs a command and ends the process with its exit status."""
    try:
        status = main()
    except Stop as error:
        say(f"error: {error}")
        status = 2
    except KeyboardInterrupt:
        say("interrupted; --json and --markdown hold the rows that were done")
        status = 130
    sys.exit(status)
