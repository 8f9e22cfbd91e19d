"""What `instructions` makes of cargo's and callgrind's output: python3 -m unittest test_instructions"""

import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

loader = SourceFileLoader("instructions", str(Path(__file__).with_name("instructions")))
instructions = module_from_spec(spec_from_loader("instructions", loader))
loader.exec_module(instructions)


class Reading(unittest.TestCase):
    def test_the_program_is_found_among_cargos_messages(self):
        other = '{"reason":"compiler-artifact","target":{"name":"store"},"executable":"/a"}'
        ours = '{"reason":"compiler-artifact","target":{"name":"instructions"},"executable":"/b"}'
        self.assertEqual(instructions.binary(f"text\n{other}\n{ours}\n"), "/b")
        with self.assertRaises(instructions.Failed):
            instructions.binary(other)

    def test_tests_and_totals_are_read(self):
        listing = "a: test\nb::c: test\na: benchmark\n\n2 tests, 0 benchmarks\n"
        self.assertEqual(instructions.names(listing), ["a", "b::c"])
        self.assertEqual(instructions.total("events: Ir\nfn=x\n1 2\n\ntotals: 345\n"), 345)
        for nothing in ["events: Ir\n", "totals: 0\n"]:
            with self.assertRaises(instructions.Failed):
                instructions.total(nothing)


class Comparing(unittest.TestCase):
    def test_more_instructions_than_the_threshold_allows_are_wrong(self):
        old = {"same": 1000, "more": 1000, "fewer": 1000}
        new = {"same": 1019, "more": 1021, "fewer": 900}
        lines, wrong = instructions.compare(old, new, 0.02)
        self.assertEqual(wrong, ["more"])
        self.assertTrue(lines[0].endswith("-10.00 %  fewer"), lines)
        self.assertTrue(lines[1].endswith("+2.10 %  MORE"), lines)
        self.assertEqual(instructions.compare(old, new, 0.1)[1], [])

    def test_kernels_on_one_side_only_are_wrong(self):
        lines, wrong = instructions.compare({"gone": 5}, {"new": 7}, 0.02)
        self.assertEqual(wrong, ["gone", "new"])
        self.assertTrue(lines[0].endswith("no test any more"), lines)


if __name__ == "__main__":
    unittest.main()
