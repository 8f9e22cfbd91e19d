"""Tests of the pruning, the export, the files and the table.

`python3 -m unittest discover -s scripts/peers`; what needs NumPy, ONNX Runtime or PyTorch is
skipped without them, so best by the Python of the environment that `scripts/peers/cpu` makes, and
by one with PyTorch.
"""

import array
import math
import tempfile
import unittest
import unittest.mock
from pathlib import Path

from bench import cards, gpu_table, pytorch, table, tucker_card
from bench.cache import Network
from bench.files import Tensor, read_tensor, read_tensors, replacing, write_json, write_tensors
from bench.gpu_table import CardCell, Entry
from bench.network import convs, prunable
from bench.pytorch import PRECISIONS
from bench.runtimes import Failed, Result, Timing, difference
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
try:
    import torch
except ImportError:
    torch = None


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

    def test_blocks_have_as_many_columns_each(self) -> None:
        """In every block of 4 by 128, the last of which is narrower."""
        from bench.prune import mask

        stays = mask(self.weight, 0.9, 4, 128).reshape(4, 4, -1)
        self.assertTrue((stays == stays[:, :1]).all())
        counts = [stays[:, 0, first : first + 128].sum(axis=1).tolist() for first in (0, 128)]
        self.assertEqual(counts, [[13] * 4, [9] * 4])

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


@unittest.skipIf(np is None or onnxruntime is None, "needs NumPy and ONNX Runtime")
class Sentences(unittest.TestCase):
    """The network for sentences in ONNX computes what its formula says."""

    def expected(self, state: dict, x: object, index: int) -> object:
        """A convolution, whose windows hang over both ends and one of which is behind the words."""
        weight, bias = state[f"convs.{index}.weight"], state[f"convs.{index}.bias"]
        window = weight.shape[2]
        padded = np.pad(x, ((0, 0), (0, 0), (window - 1, window)))
        spans = np.lib.stride_tricks.sliding_window_view(padded, window, axis=2)
        return np.einsum("oik,bitk->bot", weight, spans, optimize=True) + bias[:, None]

    def test_agrees(self) -> None:
        """The network, and a convolution alone."""
        from bench.text_models import model, weights

        random = np.random.default_rng(5)
        state = weights(random, 0.875, (3, 4, 5))
        for index, window in enumerate((3, 4, 5)):
            stays = state[f"convs.{index}.weight"].reshape(100, -1) != 0
            self.assertEqual(set(stays.sum(axis=1)), {round(300 * window / 8)})
        x = random.uniform(-0.25, 0.25, (2, 300, 9)).astype(np.float32)
        maps = [self.expected(state, x, index) for index in range(3)]
        features = np.concatenate([np.maximum(m.max(axis=2), 0) for m in maps], axis=1)
        logits = features @ state["head.weight"].T + state["head.bias"]
        for part, wanted in (("network", logits), ("conv1", maps[1].reshape(2, -1))):
            session = onnxruntime.InferenceSession(
                model(state, part, 2, 9).SerializeToString(), providers=["CPUExecutionProvider"]
            )
            (found,) = session.run(None, {"input": x})
            self.assertEqual(found.shape, wanted.shape)
            self.assertLess(np.abs(found - wanted).max(), 1e-5)


@unittest.skipIf(np is None or torch is None, "needs NumPy and PyTorch")
class Module(unittest.TestCase):
    """PyTorch's network computes what the network with its batch norms computes."""

    def setUp(self) -> None:
        """A small image, and weights from a file, the norms calibrated on other images."""
        from bench.generate import tensor
        from bench.network import walk
        from bench.prune import prune
        from bench.torch_network import weights
        from bench.weights import Forward, calibrate, images, initial

        state = initial(3)
        prune(state, VARIANTS["90"])
        calibrate(state, images(4, 2, 64))
        self.x = images(5, 2, 64)
        self.expected = walk(self.x, Forward(state))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "90.safetensors"
            write_tensors(path, {name: tensor(array) for name, array in state.items()})
            self.weights = weights(path)

    def differs(self, network: "torch.nn.Module", x: "torch.Tensor") -> float:
        """How far its class scores are from what is expected, relative to the largest."""
        with torch.inference_mode():
            found = network(x).float().numpy()
        return float(np.abs(found - self.expected).max() / np.abs(self.expected).max())

    def test_agrees(self) -> None:
        """In both memory formats, and in f16 within the bounds for it."""
        from bench.torch_network import load

        x = torch.from_numpy(self.x)
        self.assertLess(self.differs(load(self.weights), x), 1e-4)
        last = {"memory_format": torch.channels_last}
        self.assertLess(self.differs(load(self.weights).to(**last), x.contiguous(**last)), 1e-4)
        half = self.differs(load(self.weights).half(), x.half())
        self.assertTrue(1e-4 < half < PRECISIONS["f16"].tolerance)

    def test_fused(self) -> None:
        """cuDNN's operators take what they are given in this order; here others stand in."""
        from bench.torch_network import load

        def conv(x, weight, bias, stride, padding, dilation, groups):
            return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

        def relu(x, *rest):
            return conv(x, *rest).relu()

        def add_relu(x, weight, shortcut, scale, *rest):
            return (conv(x, weight, *rest) + scale * shortcut).relu()

        network = load(self.weights)
        network.fuse(True)
        patch = unittest.mock.patch.object
        with (
            patch(torch, "cudnn_convolution_relu", side_effect=relu) as first,
            patch(torch, "cudnn_convolution_add_relu", side_effect=add_relu) as second,
        ):
            self.assertLess(self.differs(network, torch.from_numpy(self.x)), 1e-4)
        # One sum a bottleneck; the four projections have nothing behind them.
        self.assertEqual((first.call_count, second.call_count), (33, 16))


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
        self.assertEqual(read_tensors(path), {"one": one, "two": two})
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
        self.assertTrue(network.whole(onnx=False))

    def test_network_without_onnx(self) -> None:
        """Is whole for those who do not need it, and for no one else."""
        network = Network(self.directory, "90")
        network.weights.write_bytes(b"123")
        write_json(network.note, network.sizes(onnx=False))
        self.assertTrue(network.whole(onnx=False))
        self.assertFalse(network.whole())
        network.onnx.write_bytes(b"of another time")
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
        self.assertEqual(table.milliseconds(cell(0.5)), "0.500")
        self.assertIn("1234", lines[3])
        self.assertIn("123.5", lines[3])
        pipes = {line.count("|") for line in table.markdown(rows).splitlines()}
        self.assertEqual(pipes, {len(table.HEADINGS) + 1})


class Cards(unittest.TestCase):
    """What NVIDIA's tool and PyTorch say."""

    LINE = "{}, GPU-{}, NVIDIA H200, 580.159.04, 143771, 4, [N/A], 1980, 345, 30, 0"

    def test_parse(self) -> None:
        """Numbers, words, and what the card does not say; other lines are none."""
        (card,) = cards.parse(self.LINE.format(0, "a") + "\nNo devices were found\n")
        self.assertEqual((card["name"], card["driver_version"]), ("NVIDIA H200", "580.159.04"))
        self.assertEqual((card["memory.total"], card["power.limit"]), (143771.0, None))

    def test_which(self) -> None:
        """By identity, or the only one."""
        one = cards.parse(self.LINE.format(0, "a"))
        two = one + cards.parse(self.LINE.format(1, "b"))
        self.assertEqual(cards.this(two, "b"), two[1])
        self.assertEqual(cards.this(one, None), one[0])
        self.assertIsNone(cards.this(two, None))
        self.assertIsNone(cards.this([], "a"))

    def test_versions(self) -> None:
        """cuDNN changed how it counts."""
        versions = [pytorch.cudnn(number) for number in (91900, 90101, 8902, None)]
        self.assertEqual(versions, ["9.19.0", "9.1.1", "8.9.2", None])

    def test_configurations(self) -> None:
        """On a card all, the plainest first; on the processor what it can run."""
        on_card = pytorch.configurations("cuda:1")
        self.assertEqual((len(on_card), on_card[0]), (8, "contiguous"))
        self.assertEqual(on_card[-1], "channels-last+fused+graph")
        self.assertEqual(pytorch.configurations("cpu"), ["contiguous", "channels-last"])

    def test_obstacles(self) -> None:
        """TF32 is nothing for the processor or for old cards."""
        old, new = {"capability": [7, 5]}, {"capability": [9, 0]}
        self.assertIn("8.0", PRECISIONS["tf32"].obstacle(None))
        self.assertIn("8.0", PRECISIONS["tf32"].obstacle(old))
        self.assertIsNone(PRECISIONS["tf32"].obstacle(new))
        self.assertIsNone(PRECISIONS["f16"].obstacle(None))

    def test_outcome(self) -> None:
        """Times with and without the card's, no times, and a failure."""
        logits = Tensor("F32", (1, 2), array.array("f", [1, 2]).tobytes())
        result = pytorch.outcome({"times": [2.0], "events": [1.0]}, {"version": "2"}, logits)
        self.assertEqual((result.timing.median, result.card.median), (2.0, 1.0))
        self.assertEqual((result.logits.tolist(), result.about), ([1, 2], {"version": "2"}))
        untimed = pytorch.outcome({"times": [], "events": []}, {}, logits)
        self.assertEqual((untimed.timing, untimed.card), (None, None))
        self.assertIsInstance(pytorch.outcome({"failure": "no"}, {}, None), Failed)

    def test_interpreter(self) -> None:
        """Without PyTorch, one that was named is an error; and nothing is installed for no card."""
        with self.assertRaisesRegex(Failed, "--python /nowhere"):
            pytorch.interpreter("cuda", Path("/nowhere"))
        patch = unittest.mock.patch.object
        with (
            patch(pytorch, "describe", side_effect=Failed("No module named 'torch'")),
            patch(pytorch, "driver", return_value=False),
            patch(pytorch, "say"),
            self.assertRaisesRegex(Failed, "no NVIDIA card"),
        ):
            pytorch.interpreter("cuda", None)


EXPECTED = array.array("f", [1, -4])


def result(median: float, logits: tuple[float, float] = (1, -4)) -> Result:
    """A round with these class scores."""
    return Result(Timing.of([median]), array.array("f", logits), {}, Timing.of([median / 2]))


def entry(key: str, *rounds: dict[str, Result | Failed]) -> Entry:
    """A runtime after these rounds, alone in its configurations."""
    tolerance = PRECISIONS[key].tolerance if key in PRECISIONS else table.TOLERANCE
    found = Entry({name: CardCell(tolerance=tolerance) for name in rounds[0]})
    for results in rounds:
        found.add(results, EXPECTED, 0.0)
    return found


def gpu_row(**entries: Entry) -> gpu_table.Row:
    """A row in which graphs are the fastest, by 3, 2 and 1 ms."""
    usual = {
        key: entry(key, {"contiguous": result(9), "contiguous+graph": result(median)})
        for key, median in (("f32", 3), ("tf32", 2), ("f16", 1))
    }
    return gpu_table.Row(
        VARIANTS["90"], 1, usual | {"ours": entry("ours", {"ours": result(2)})} | entries
    )


class TuckerOnCards(unittest.TestCase):
    """Factors beside cuDNN's."""

    ROW = {
        "name": "layer", "batch": 2, "dtype": "f32", "flop_ratio": 2.5,
        "ranks": {"output": 6, "input": 4},
        "problem": {"in_channels": 8, "out_channels": 6, "input": [7, 5], "kernel": [3, 3], "stride": [2, 2]},
    }

    def test_parts(self) -> None:
        """A factor of all channels is none."""
        [dense] = tucker_card.parts(self.ROW, "dense")
        self.assertEqual((dense.inputs, dense.outputs, dense.kernel, dense.stride), (8, 6, 3, 2))
        reduce, core = tucker_card.parts(self.ROW, "three")
        self.assertEqual((reduce.inputs, reduce.outputs, reduce.kernel, reduce.stride), (8, 4, 1, 1))
        self.assertEqual((core.inputs, core.outputs, core.kernel, core.stride), (4, 6, 3, 2))

    def test_fastest(self) -> None:
        """Layout changes count, unless a network would make none."""
        ways = {
            "contiguous": {"times": [3.0, 2.0, 9.0]},
            "channels-last": {"times": [2.5, 2.5]},
            "channels-last+inside": {"times": [1.0]},
            "contiguous+graph": {"failure": "no"},
        }
        self.assertEqual(tucker_card.fastest(ways, inside=False), 2.5)
        self.assertEqual(tucker_card.fastest(ways, inside=True), 1.0)
        self.assertIsNone(tucker_card.fastest({"contiguous": {"failure": "no"}}, inside=False))

    def test_rendering(self) -> None:
        """A row that failed says why, and columns that nobody has are left out."""
        times = {"f32 dense": 3.0, "f32 three": 1.5, "factors": 2.0}
        text = tucker_card.render([self.ROW | {"milliseconds": times}, self.ROW | {"failed": "no memory"}])
        head, rule, row, failed = text.splitlines()
        self.assertEqual({line.count("|") for line in (head, rule, row, failed)}, {head.count("|")})
        self.assertNotIn("TF32", head)
        self.assertIn("| 1.50 | 0.75 |", row)
        self.assertIn("no memory", failed)

    @unittest.skipIf(torch is None, "needs PyTorch")
    def test_sessions(self) -> None:
        """All layouts compute the same, and the three have the shape of the one."""
        from bench.torch_layers import Layer
        layer = Layer(self.ROW, torch.device("cpu"), torch.float32, 0)
        for form in tucker_card.FORMS:
            results = [
                layer.session(form, layout)()
                for layout in tucker_card.LAYOUTS.values()
                if not layout.graph
            ]
            for result in results:
                self.assertEqual(list(result.shape), [2, 6, 4, 3])
                self.assertTrue(torch.allclose(result, results[0], atol=1e-5))


class GpuTable(unittest.TestCase):
    """The fastest configurations, ratios and agreement."""

    def test_ratios(self) -> None:
        """Against the fastest configuration of each precision."""
        usual = gpu_row()
        self.assertEqual([usual.ratio(key) for key in PRECISIONS], [1.5, 1.0, 0.5])
        self.assertEqual(usual.entries["f32"].fastest, "contiguous+graph")
        self.assertEqual((usual.agreement, usual.sound, usual.remarks()), ("agree", True, []))
        self.assertIn("f32 contiguous+graph, TF32 contiguous+graph", usual.fastest())

    def test_median_of_rounds(self) -> None:
        """The fastest is chosen by it, not by the fastest round."""
        rounds = [{"contiguous": result(a), "channels-last": result(5)} for a in (1, 9, 10)]
        self.assertEqual(entry("f32", *rounds).fastest, "channels-last")

    def test_refused_configurations(self) -> None:
        """Are worth a remark as long as others run; then the runtime has failed."""
        refused = {"contiguous": result(4), "contiguous+fused": Failed("NOT_SUPPORTED")}
        some = gpu_row(f32=entry("f32", refused))
        self.assertEqual((some.ratio("f32"), some.sound), (2.0, True))
        self.assertEqual(len(some.remarks()), 1)
        self.assertIn("contiguous+fused: NOT_SUPPORTED", some.remarks()[0])
        none = gpu_row(f32=entry("f32", {"contiguous": Failed("out of memory")}))
        self.assertEqual((none.ratio("f32"), none.sound), (None, False))
        self.assertIn("failed", none.columns())
        self.assertIn("out of memory", " ".join(none.remarks()))

    def test_failures(self) -> None:
        """Of a whole process, before and after a round that went well."""
        early = gpu_row(ours=Entry({"ours": CardCell()}, "no such device"))
        late = gpu_row()
        late.entries["ours"].failure = "killed by signal 9"
        for failed in (early, late):
            self.assertEqual([failed.ratio(key) for key in PRECISIONS], [None] * 3)
            self.assertFalse(failed.sound)
            self.assertEqual(failed.columns()[5], "failed")
            self.assertIn("failure", failed.fields()["milliseconds"]["ours"])

    def test_wrong_results_do_not_count(self) -> None:
        """By the bound of the precision; each configuration stands for itself."""
        near = (1.1, -4.0)
        within = gpu_row(f16=entry("f16", {"contiguous": result(1, near)}))
        self.assertEqual(within.agreement, "agree")
        ours = gpu_row(ours=entry("ours", {"ours": result(2, near)}))
        self.assertEqual((ours.agreement, ours.ratio("f32")), ("DISAGREES: ours", None))
        self.assertFalse(ours.sound)
        self.assertEqual(ours.columns()[5], "2.00")
        part = {"contiguous": result(4), "contiguous+graph": result(1, (math.nan, -4))}
        one = gpu_row(f32=entry("f32", part))
        self.assertEqual(one.agreement, "DISAGREES: PyTorch f32 (contiguous+graph)")
        self.assertEqual((one.ratio("f32"), one.sound), (2.0, False))
        self.assertIn("contiguous+graph: logits differ", one.remarks()[0])

    def test_absent_runtimes(self) -> None:
        """A table without this project, or without a precision, has no ratios for it."""
        absent = gpu_row()
        del absent.entries["ours"], absent.entries["tf32"]
        self.assertEqual([absent.ratio(key) for key in PRECISIONS], [None] * 3)
        self.assertEqual(absent.columns()[3], "-")
        self.assertTrue(absent.sound)

    def test_report(self) -> None:
        """The fastest configuration in front, all behind it, with the card's own times."""
        fields = gpu_row().fields()
        found = fields["milliseconds"]["f32"]
        self.assertEqual((found["configuration"], found["median"]), ("contiguous+graph", 3))
        self.assertEqual(found["configurations"]["contiguous"]["card"][0]["median"], 4.5)
        self.assertEqual(fields["ratios"], {"f32": 1.5, "tf32": 1.0, "f16": 0.5})

    def test_rendering(self) -> None:
        """As many columns as headings, numbers to the right."""
        lines = table.text([gpu_row()], gpu_table.HEADINGS).splitlines()
        self.assertEqual(lines[0].index("verdict"), lines[2].index("agree"))
        self.assertEqual(lines[0].index("f32/ours") + 8, lines[2].index("1.50") + 4)
        drawn = table.markdown([gpu_row()], gpu_table.HEADINGS).splitlines()
        self.assertEqual({line.count("|") for line in drawn}, {len(gpu_table.HEADINGS) + 1})


if __name__ == "__main__":
    unittest.main()
