#!/usr/bin/env python3
"""How fast a training step is, against PyTorch eager on the same processor.

    python3 bench/training.py [--work vit-tiny] [--python VENV/bin/python] [--seconds 60]

training-WORK         training steps a second, and their ratio to the peer's
training-WORK-memory  peak resident memory of the training process, and its ratio to the peer's

vit-tiny       ViT-Ti/16, 8 images of 224 x 224
vit-tiny-bf16  the same in bfloat16; the peer under autocast
vit-tiny-2x1   the same batch on two workers of one thread each; the peer with DistributedDataParallel on Gloo
gpt2           GPT-2 of 124 million parameters, 1 x 512 tokens
bert           BERT-base as a classifier, 8 x 128 tokens
cnn            the first two stages of ResNet-18, 16 images of 64 x 64

A step is forward, loss, backward, clipping by the global norm (1.0) and AdamW (rate 1e-4, betas 0.9 and 0.999, eps 1e-8,
decay 0.01 of what has two or more dimensions, but for positions and the class token), without dropout. Both sides are
processes that stay alive and step by turns, so that whatever else the machine does meets both. They begin from the same
weights and learn the same batch: it is an error if their losses or gradient norms differ in the first steps.

Without --python an environment is made in target/bench-venv, from PyPI. How the two sides are spoken to stands at `Side`.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import time

import result

ROOT = result.ROOT
PEERS = ROOT / "bench" / "peers"
VENV = ROOT / "target" / "bench-venv"
PACKAGES = ["torch==2.15.0", "safetensors", "numpy"]
WARM_UP_STEPS = 2
NORM_ERROR = 2e-3
COMPARED_STEPS = 5
FEWEST_STEPS, MOST_STEPS = 7, 200
# The peer's memory is kept for the next step instead of being given back: it is faster so, as with the allocators that
# PyTorch's guide to tuning recommends, but takes more memory. So its peak memory comes from a process without this.
PEER_KEEPS_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
# As the workers of phalanx set it for themselves (cli/src/memory.rs): they keep memory, too.
OURS_KEEPS_MEMORY = {"MIMALLOC_PURGE_DELAY": "-1"}
# So that the threads of one side have gone to sleep when the other begins.
PAUSE_S = 0.02
# A side that says nothing for so long hangs.
SILENCE_S = 600.0
# What a side may leave out of the seconds that it tells: reading the command, writing the answer.
UNTOLD_S = 0.01


@dataclasses.dataclass(frozen=True)
class Work:
    """`model` is its name on both sides; `goal` is for the ratio of speeds."""

    model: str
    goal: float
    precision: str = "f32"
    ranks: int = 1
    tolerance: float = 1e-4


WORKS = {
    "vit-tiny": Work("vit-tiny", 2.0),
    "vit-tiny-bf16": Work("vit-tiny", 1.0, precision="bf16", tolerance=5e-2),
    "vit-tiny-2x1": Work("vit-tiny", 2.0, ranks=2),
    "gpt2": Work("gpt2", 1.8),
    "bert": Work("bert", 1.8),
    "cnn": Work("cnn", 1.0),
}
MEMORY_GOAL = 1.0


def products(model: str) -> tuple[list[tuple[int, int]], float]:
    """Of the matrix products of a pass forward: pairs of weights and tokens that each of them meets, and the operations of
    the attention, which are 4 * tokens^2 * width a layer and sample (half of it where a token sees those before it only)."""

    def layers(count: int, width: int, tokens: int, samples: int, seen: float) -> tuple[list[tuple[int, int]], float]:
        # Query, key, value and output are 4 width^2, the two layers after them 8 width^2.
        return [(count * 12 * width**2, samples * tokens)], count * samples * 4 * tokens**2 * width * seen

    def square(inputs: int, outputs: int, size: int, kernel: int = 3) -> tuple[int, int]:
        return inputs * outputs * kernel**2, 16 * size**2

    match model:
        case "vit-tiny":
            weights, attention = layers(12, 192, 197, 8, 1.0)
            return [*weights, (16 * 16 * 3 * 192, 8 * 196), (192 * 1000, 8)], attention
        case "gpt2":
            weights, attention = layers(12, 768, 512, 1, 0.5)
            return [*weights, (768 * 50257, 512)], attention
        case "bert":
            weights, attention = layers(12, 768, 128, 8, 1.0)
            return [*weights, (768 * 768 + 768 * 2, 8)], attention
        case "cnn":
            first = [square(3, 64, 64), *[square(64, 64, 64)] * 4]
            second = [square(64, 128, 32), square(64, 128, 32, kernel=1), *[square(128, 128, 32)] * 3]
            return [*first, *second, (128 * 10, 16)], 0.0
    raise ValueError(model)


def gigaflop(model: str) -> float:
    """Of a step: 6 * weights * tokens, for a pass forward and two backward of 2 each, and three times the attention's."""
    weights, attention = products(model)
    return 1e-9 * (6 * sum(count * tokens for count, tokens in weights) + 3 * attention)


class Side:
    """A process that trains, one step for each line `step` on its input.

    Its first line is {"ready": true, "parameters": N, "threads": T, "precision": P}, once the model is built and its
    weights are loaded; ours may add "gemm_gflops", the rate of a large matrix product. It answers `step` with {"loss": f,
    "grad_norm": f, "seconds": f}, where the norm is from before clipping, and `quit` with {"peak_rss_mib": f}.
    """

    def __init__(self, command: list, environment: dict | None = None):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(
            self.command, env={**os.environ, **(environment or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.steps, self.walls = [], []
        self.ready = self._read()

    def step(self) -> None:
        start = time.perf_counter()
        answer = self._ask("step")
        self.walls.append(time.perf_counter() - start)
        self.steps.append(answer)
        time.sleep(PAUSE_S)

    def quit(self) -> float:
        """Its peak memory in MiB."""
        peak = self._ask("quit")["peak_rss_mib"]
        self.process.wait(SILENCE_S)
        return peak

    def seconds(self) -> list[float]:
        """Of the steps after the first ones. They are the side's own, and must be nearly what one waited for."""
        told = [step["seconds"] for step in self.steps[WARM_UP_STEPS:]]
        waited = statistics.median(self.walls[WARM_UP_STEPS:])
        untold = waited - statistics.median(told)
        if not 0 <= untold <= max(UNTOLD_S, 0.02 * waited):
            sys.exit(f"{self.command[0]} tells {statistics.median(told):.4f} s for steps that took {waited:.4f} s")
        return told

    def _ask(self, line: str) -> dict:
        try:
            self.process.stdin.write(line + "\n")
        except BrokenPipeError:
            pass
        return self._read()

    def _read(self) -> dict:
        # Only whole lines are written, and each is asked for, so nothing waits in the buffer of the reader.
        if not select.select([self.process.stdout], [], [], SILENCE_S)[0]:
            sys.exit(f"no answer for {SILENCE_S:.0f} s from {' '.join(self.command)}")
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"ended early with exit code {self.process.wait()}: {' '.join(self.command)}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def interpreter() -> pathlib.Path:
    """One that has PyTorch."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def build(example: str) -> pathlib.Path:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    subprocess.run(["cargo", "build", "--release", "--workspace", "--example", example], cwd=ROOT, check=True)
    return target / "release" / "examples" / example


def our_command(work: Work, folder: pathlib.Path, program: pathlib.Path | None) -> list:
    example = "training_step" if work.ranks == 1 else "data_parallel_step"
    program = program or build(example)
    if work.ranks > 1:
        return [program, "--dir", folder, "--ranks", work.ranks]
    return [program, "--work", work.model, "--precision", work.precision, "--threads", 2, "--dir", folder]


def peer_command(work: Work, folder: pathlib.Path, arguments) -> list:
    if work.ranks > 1:
        return [arguments.python, PEERS / "torch_ddp.py", "--work", work.model, "--dir", folder]
    single = [arguments.python, PEERS / "torch_training.py", "--work", work.model, "--dir", folder]
    return [*single, "--precision", work.precision, "--threads", 2, *(["--compile"] if arguments.compile else [])]


def show(number: int, sides: list[Side]) -> None:
    cells = [f"{s.steps[-1]['loss']:.6f} {s.steps[-1]['grad_norm']:10.5f} {s.steps[-1]['seconds']:8.4f} s" for s in sides]
    print(f"{number:5}  " + "   |   ".join(cells), flush=True)


def check_agreement(number: int, ours: dict, peer: dict, tolerance: float) -> None:
    for field in ("loss", "grad_norm"):
        difference = abs(ours[field] - peer[field]) / abs(peer[field])
        if field == "grad_norm":
            # PyTorch adds the squares up in float32: for gpt2's 124 million it tells 4.04724, where the sum of its own
            # gradients' squares in float64, and ours, give 4.04875.
            difference -= NORM_ERROR
        # Written so that a value that is not a number fails.
        if not difference < tolerance:
            sys.exit(f"step {number}: {field} {ours[field]} differs from the peer's {peer[field]} by {difference:.1e}")


def take_turns(sides: list[Side], work: Work, arguments) -> None:
    """As many steps as fit the time, one of each side by turns."""
    count = arguments.steps
    for number in range(1, WARM_UP_STEPS + MOST_STEPS + 1):
        for side in sides:
            side.step()
        show(number, sides)
        if len(sides) == 2 and number <= COMPARED_STEPS:
            check_agreement(number, sides[0].steps[-1], sides[1].steps[-1], work.tolerance)
        if number == WARM_UP_STEPS and count is None:
            turn = sum(side.walls[-1] + PAUSE_S for side in sides)
            count = min(max(round(arguments.seconds / turn), FEWEST_STEPS), MOST_STEPS)
        if number >= WARM_UP_STEPS and number - WARM_UP_STEPS == count:
            return


def measure_alone(name: str, folder: pathlib.Path, arguments) -> None:
    """One side, for those who work on it; writes nothing."""
    work = WORKS[name]
    command = our_command(work, folder, arguments.ours) if arguments.alone == "ours" else peer_command(work, folder, arguments)
    with Side(command) as side:
        print(f"{name}, {arguments.alone}: {json.dumps(side.ready)}")
        take_turns([side], work, arguments)
        median, peak = statistics.median(side.seconds()), side.quit()
    print(f"{name}, {arguments.alone}: {median:.4f} s a step, {gigaflop(work.model) / median:.0f} GFLOP/s, peak {peak:.0f} MiB")


def peak_memory(command: list) -> float:
    with Side(command) as side:
        for _ in range(WARM_UP_STEPS):
            side.step()
        return side.quit()


def measure(name: str, folder: pathlib.Path, arguments) -> list[bool]:
    work = WORKS[name]
    with (
        Side(our_command(work, folder, arguments.ours), OURS_KEEPS_MEMORY) as ours,
        Side(peer_command(work, folder, arguments), PEER_KEEPS_MEMORY) as peer,
    ):
        print(f"{name}, ours: {json.dumps(ours.ready)}\n{name}, peer: {json.dumps(peer.ready)}")
        if ours.ready["parameters"] != peer.ready["parameters"]:
            sys.exit(f"ours has {ours.ready['parameters']} parameters, the peer {peer.ready['parameters']}")
        print(" step  loss, gradient norm and seconds of ours   |   of the peer")
        take_turns([ours, peer], work, arguments)
        our_seconds, peer_seconds = ours.seconds(), peer.seconds()
        our_peak, _ = ours.quit(), peer.quit()

    limit = ours.ready.get("gemm_gflops")
    needed, note = gigaflop(work.model), f"{gigaflop(work.model):.1f} GFLOP a step"
    for side, seconds in [("ours", our_seconds), ("peer", peer_seconds)]:
        rate = needed / statistics.median(seconds)
        share = f" ({rate / limit:.0%} of a large matrix product's {limit:.0f})" if limit else ""
        note += f", {side} {rate:.0f} GFLOP/s{share}"
    print(f"{name}: {note}")
    if arguments.compile:
        ratio = statistics.median(peer_seconds) / statistics.median(our_seconds)
        print(f"{name}: {ratio:.3g} times the speed of torch.compile; for information, nothing is written")
        return []

    pairs = [theirs / our for our, theirs in zip(our_seconds, peer_seconds)]
    peer_name = "PyTorch eager" if work.ranks == 1 else "PyTorch DistributedDataParallel, Gloo"
    speed = {
        "peer": peer_name,
        "peer_value": 1 / statistics.median(peer_seconds),
        "ratio": statistics.median(pairs),
        "spread": [min(pairs), max(pairs)],
    }
    peer_peak = peak_memory(peer_command(work, folder, arguments))
    ratio = our_peak / peer_peak
    memory = {"peer": peer_name, "peer_value": peer_peak, "ratio": ratio, "spread": [ratio, ratio]}
    runs = [1 / seconds for seconds in our_seconds]
    return [
        result.write(f"training-{name}", runs, "steps/s", "higher", work.goal, speed, note),
        result.write(f"training-{name}-memory", [our_peak], "MiB", "lower", MEMORY_GOAL, memory),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=WORKS, action="append", help="may be given several times; all if left out")
    parser.add_argument("--python", type=pathlib.Path, help="an interpreter that has torch, safetensors and numpy")
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long the steps of a work may take")
    parser.add_argument("--steps", type=int, help="how many steps of each side instead, after the first two")
    parser.add_argument("--alone", choices=["ours", "peer"], help="only this side; writes no result")
    parser.add_argument("--compile", action="store_true", help="the peer with torch.compile, for information; writes no result")
    parser.add_argument("--ours", type=pathlib.Path, help="the program to measure, instead of building it")
    arguments = parser.parse_args()
    arguments.python = arguments.python or interpreter()
    met = []
    for name in arguments.work or WORKS:
        folder = ROOT / "target" / "bench" / name
        prepare = [PEERS / "torch_training.py", "--work", WORKS[name].model, "--dir", folder, "--prepare"]
        subprocess.run([arguments.python, *prepare], check=True)
        if arguments.alone:
            measure_alone(name, folder, arguments)
        else:
            met += measure(name, folder, arguments)
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
