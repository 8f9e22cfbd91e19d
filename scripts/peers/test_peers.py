"""Tests of the pruning, the export, the files and the table.

`python3 -m unittest discover -s scripts/peers`; what needs NumPy or ONNX Runtime is skipped
without them, so best by the Python of the environment that `scripts/peers/cpu` makes.
"""

import array
import math
import tempfile
import unittest
from pathlib import Path

from bench import table
from bench.cache import Network
from bench.files import Tensor, read_tensor, replacing, write_json, write_tensors
from bench.network import convs, prunable
from bench.runtimes import Timing, difference
from bench.variants import VARIANTS

try:
    import numpy as np
except ImportError:
    np = None
try:
    import onnx
    import onnxruntime
except ImportError:
    onnxruntime = None


class Architecture(unittest.TestCase):
    """The shapes are torchvision's."""

    def test_parameters(self) -> None:
        """As many as torchvision says: convolutions, norms and the classifier."""
        layers = list(convs())
        weights = sum(math.prod(conv.shape) for conv in layers)
        norms = sum(2 * conv.outputs for conv in layers)
        self.assertEqual(len(layers), 53)
        self.assertEqual(weights + norms + 2048 * 1000 + 1000, 25_557_032)

    def test_only_the_stem_stays_dense(self) -> None:
        """Projections are pruned too."""
        self.assertEqual([c.name for c in convs() if not prunable(c)], ["conv1"])
        self.assertIn("layer1.0.downsample.0", [c.name for c in convs() if prunable(c)])


@unittest.skipIf(np is None, "needs NumPy")
class Pruning(unittest.TestCase):
    """Counts and patterns."""

    def setUp(self) -> None:
        """A weight with no two magnitudes alike."""
        self.weight = np.random.default_rng(7).standard_normal((16, 24, 3, 3), np.float32)

    def test_every_row_keeps_as_many(self) -> None:
        """In each output channel, rounded."""
        from bench.prune import mask

        for sparsity, keep in ((0.8, 43), (0.9, 22), (0.95, 11)):
            counts = mask(self.weight, sparsity).reshape(16, -1).sum(axis=1)
            self.assertEqual(counts.tolist(), [keep] * 16)

    def test_the_largest_stay(self) -> None:
        """No weight that goes is larger than one that stays in the same row."""
        from bench.prune import mask

        stays = mask(self.weight, 0.9).reshape(16, -1)
        rows = np.abs(self.weight).reshape(16, -1)
        for row, stay in zip(rows, stays):
            self.assertGreater(row[stay].min(), row[~stay].max())

    def test_blocks_share_their_pattern(self) -> None:
        """All four the same, the next four not, and the largest norms stay."""
        from bench.prune import mask

        stays = mask(self.weight, 0.9, 4).reshape(4, 4, -1)
        self.assertTrue((stays == stays[:, :1]).all())
        self.assertFalse((stays[0, 0] == stays[1, 0]).all())
        self.assertEqual(stays.sum(axis=2).tolist(), [[22] * 4] * 4)
        norms = np.square(self.weight.reshape(4, 4, -1)).sum(axis=1)
        for norm, stay in zip(norms, stays[:, 0]):
            self.assertGreater(norm[stay].min(), norm[~stay].max())

    def test_something_stays(self) -> None:
        """One weight at least, and all at a sparsity of zero."""
        from bench.prune import kept

        self.assertEqual((kept(8, 0.99), kept(8, 0.0)), (1, 8))

    def test_blocks_must_divide(self) -> None:
        """Three channels are no block of four."""
        from bench.prune import mask

        with self.assertRaisesRegex(ValueError, "blocks of 4"):
            mask(self.weight[:3], 0.9, 4)


@unittest.skipIf(np is None or onnxruntime is None, "needs NumPy and ONNX Runtime")
class Export(unittest.TestCase):
    """The folded graph computes what the network with its batch norms computes."""

    def test_agrees(self) -> None:
        """On small images, with the batch norms calibrated on others."""
        from bench.export import model
        from bench.network import walk
        from bench.prune import prune
        from bench.weights import Forward, calibrate, images, initial

        state = initial(3)
        prune(state, VARIANTS["90-blocks"])
        calibrate(state, images(4, 2, 64))
        x = images(5, 2, 64)
        proto = model(state, 64)
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"input": x})
        expected = walk(x, Forward(state))
        self.assertLess(np.abs(found - expected).max() / np.abs(expected).max(), 1e-4)
        # Neither exploded nor dead, and images are told apart.
        self.assertTrue(0.1 < expected.std() < 10)
        self.assertGreater(np.abs(expected[0] - expected[1]).max(), 0.05)
        # Zeros survive the folding.
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
        for conv in convs():
            name = f"{conv.name}.weight"
            self.assertEqual(np.count_nonzero(arrays[name]), np.count_nonzero(state[name]))


class Files(unittest.TestCase):
    """What is written is read, or was never there."""

    def setUp(self) -> None:
        """A directory that goes away."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_tensors(self) -> None:
        """Two tensors, read by name."""
        path = self.directory / "a.safetensors"
        one = Tensor("F32", (2, 1), array.array("f", [1, 2]).tobytes())
        two = Tensor("F32", (1,), array.array("f", [3]).tobytes())
        write_tensors(path, {"one": one, "two": two})
        self.assertEqual(read_tensor(path, "one"), one)
        self.assertEqual(read_tensor(path, "two"), two)
        with self.assertRaisesRegex(ValueError, "no tensor `three`"):
            read_tensor(path, "three")

    def test_failure_leaves_the_old_file(self) -> None:
        """And nothing beside it."""
        path = self.directory / "a.txt"
        path.write_text("old")
        with self.assertRaises(KeyError), replacing(path) as temporary:
            temporary.write_text("half of the new")
            raise KeyError
        self.assertEqual(path.read_text(), "old")
        self.assertEqual(list(self.directory.iterdir()), [path])

    def test_network_is_whole(self) -> None:
        """Only with a note whose sizes are those of the files."""
        network = Network(self.directory, "90")
        self.assertFalse(network.whole())
        network.weights.write_bytes(b"123")
        network.onnx.write_bytes(b"12345")
        self.assertFalse(network.whole())
        write_json(network.note, network.sizes())
        self.assertTrue(network.whole())
        network.onnx.write_bytes(b"1234")
        self.assertFalse(network.whole())


def cell(*medians: float, difference: float = 0.0) -> table.Cell:
    """A cell with a round for each median."""
    return table.Cell([Timing.of([median]) for median in medians], difference)


def row(key: str = "90", batch: int = 1, **cells: table.Cell) -> table.Row:
    """A row in which DeepSparse is the fastest of the others, by 30 ms."""
    usual = {"ort": cell(40), "openvino": cell(50), "deepsparse": cell(30), "ours": cell(10)}
    return table.Row(VARIANTS[key], batch, usual | cells)


class Table(unittest.TestCase):
    """Medians, ratios and verdicts."""

    def test_timing(self) -> None:
        """Quartiles between two runs are interpolated."""
        timing = Timing.of([4.0, 1.0, 2.0, 3.0])
        self.assertEqual(timing, Timing(2.5, 1.0, 4.0, 1.5, 4))

    def test_median_of_rounds(self) -> None:
        """One slow round does not move it, but shows."""
        slow = cell(10, 11, 30)
        self.assertEqual((slow.median, slow.spread), (11, 20))
        self.assertIn("rounds differ by 182 %", row(ours=slow).remarks()[0])

    def test_disturbance_shows(self) -> None:
        """Other processes make times worthless, however steady."""
        busy = cell(10)
        busy.others = 0.5
        self.assertIn("other processes took 50 %", row(ours=busy).remarks()[0])
        self.assertEqual(row().remarks(), [])

    def test_met_and_missed(self) -> None:
        """Against the fastest; a ratio on the target meets it."""
        self.assertEqual((row().fastest, row().ratio, row().verdict), ("deepsparse", 3.0, "met"))
        self.assertEqual(row(ours=cell(10.1)).verdict, "missed")
        self.assertEqual(row(batch=16, ours=cell(30)).verdict, "met")

    def test_without_target(self) -> None:
        """Dense networks and other batches have none."""
        self.assertEqual(row("dense").verdict, "-")
        self.assertEqual(row(batch=2).verdict, "-")
        self.assertEqual(row("dense").ratio, 3.0)

    def test_absent_runtimes_are_named(self) -> None:
        """Whether not installed or failed, a target is not silently easier."""
        absent = row()
        del absent.cells["deepsparse"]
        self.assertEqual((absent.fastest, absent.ratio), ("ort", 4.0))
        self.assertEqual(absent.verdict, "met (without DeepSparse)")
        self.assertTrue(absent.sound)
        failed = row(deepsparse=table.Cell(failure="no AVX2"))
        self.assertEqual(failed.verdict, "met (without DeepSparse)")
        self.assertIn("no AVX2", failed.remarks()[0])
        self.assertIn("failed", failed.columns())
        self.assertFalse(failed.sound)

    def test_wrong_results_do_not_count(self) -> None:
        """Neither ours nor the fastest other."""
        wrong = row(ours=cell(1, difference=2e-3))
        self.assertEqual((wrong.verdict, wrong.ratio), ("DISAGREES: ours", None))
        self.assertFalse(wrong.sound)
        other = row(deepsparse=cell(30, difference=math.inf))
        self.assertEqual((other.verdict, other.fastest), ("DISAGREES: DeepSparse", "ort"))
        self.assertIsNone(other.fields()["milliseconds"]["deepsparse"]["difference"])

    def test_difference(self) -> None:
        """Relative to the largest; what is no number, or of another length, differs entirely."""
        expected = array.array("f", [1, -4])
        self.assertEqual(difference(array.array("f", [2, -4]), expected), 0.25)
        self.assertEqual(difference(array.array("f", [math.nan, -4]), expected), math.inf)
        self.assertEqual(difference(array.array("f", [1]), expected), math.inf)

    def test_rendering(self) -> None:
        """Aligned text, and Markdown with as many columns in every line."""
        rows = [row(), row("dense", 16, ours=cell(1234.5), ort=cell(123.45))]
        lines = table.text(rows).splitlines()
        self.assertEqual(lines[0].index("verdict"), lines[2].index("met"))
        self.assertIn("1234", lines[3])
        self.assertIn("123.5", lines[3])
        pipes = {line.count("|") for line in table.markdown(rows).splitlines()}
        self.assertEqual(pipes, {len(table.HEADINGS) + 1})


if __name__ == "__main__":
    unittest.main()
