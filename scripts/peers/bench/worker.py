"""Times one runtime on one network, in a process of its own.

Runs in the runtime's environment: `python -m bench.worker --help`.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .files import Tensor, read_tensor, write_json, write_tensors

Session = Callable[[np.ndarray], np.ndarray]


def ort(model: Path, shape: tuple[int, ...], threads: int) -> tuple[Session, str]:
    """ONNX Runtime on its CPU provider, all graph optimisations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # The shape is known, as it is to the others.
    options.add_free_dimension_override_by_name("batch", shape[0])
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    # Bound once: a feature map of megabytes is not allocated and copied in every run.
    binding = session.io_binding()
    bound: list[object] = []

    def run(x: np.ndarray) -> np.ndarray:
        if not bound:
            output = np.empty_like(session.run(None, {"input": x})[0])
            bound.extend([onnxruntime.OrtValue.ortvalue_from_numpy(v) for v in (x, output)])
            binding.bind_ortvalue_input("input", bound[0])
            binding.bind_ortvalue_output(session.get_outputs()[0].name, bound[1])
        session.run_with_iobinding(binding)
        return bound[1]

    return run, onnxruntime.__version__


def openvino(model: Path, shape: tuple[int, ...], threads: int) -> tuple[Session, str]:
    """OpenVINO's CPU plugin, for latency, in f32 also where the processor has bf16."""
    import openvino

    core = openvino.Core()
    network = core.read_model(str(model))
    network.reshape(list(shape))
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    request = core.compile_model(network, "CPU", hints).create_infer_request()

    def run(x: np.ndarray) -> np.ndarray:
        return request.infer([x], share_inputs=True, share_outputs=True)[0]

    return run, openvino.__version__.split("-")[0]


def deepsparse(model: Path, shape: tuple[int, ...], threads: int) -> tuple[Session, str]:
    """DeepSparse's engine, one stream."""
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    import deepsparse

    engine = deepsparse.Engine(
        str(model), batch_size=shape[0], num_cores=threads, num_streams=1
    )
    return lambda x: engine.run([x], val_inp=False)[0], deepsparse.__version__


RUNTIMES = {"ort": ort, "openvino": openvino, "deepsparse": deepsparse}


def measure(session: Session, x: np.ndarray, warmup: int, repeat: int) -> list[float]:
    """Milliseconds of `repeat` runs after `warmup` others."""
    for _ in range(warmup):
        session(x)
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        session(x)
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", choices=RUNTIMES, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--input", type=Path, required=True, help="`input`, .safetensors")
    parser.add_argument("--output", type=Path, required=True, help="`logits`, .safetensors")
    parser.add_argument("--json", type=Path, required=True, help="milliseconds and version")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repeat", type=int, required=True, help="0 for the output alone")
    args = parser.parse_args()

    stored = read_tensor(args.input, "input")
    x = np.frombuffer(stored.data, "<f4").astype(np.float32).reshape(stored.shape)
    session, version = RUNTIMES[args.runtime](args.model, stored.shape, args.threads)
    times = measure(session, x, args.warmup if args.repeat else 0, args.repeat)
    logits = session(x)
    if not isinstance(logits, np.ndarray):
        logits = logits.numpy()
    logits = np.ascontiguousarray(logits, dtype="<f4")
    write_tensors(args.output, {"logits": Tensor("F32", logits.shape, logits.tobytes())})
    write_json(args.json, {"version": version, "times": times})


if __name__ == "__main__":
    main()
