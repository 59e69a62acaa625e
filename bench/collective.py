#!/usr/bin/env python3
"""Our reductions against Gloo's, between processes of this machine, in alternating rounds of one run.

    python3 bench/collective.py [--rounds 5] [--python PYTHON_WITH_TORCH]

all_reduce_latency_{shm,tcp}_{2,4}_ranks        seconds of one all-reduce of 1 kB, waiting in a barrier before each
all_reduce_bandwidth_{shm,tcp}_{25,330}mb_{2,4}_ranks   bus bandwidth, 2 (n - 1) / n * bytes / time, in GB/s
all_reduce_abort_{shm,tcp}_{2,4}_ranks          seconds from an abort amid reductions of 25 MB to the return of the last rank

Ours is always the exact reduction in tree order, by the example `latency` of the crate `collective`: through shared memory,
and by TCP as between hosts. The peer is torch.distributed with the backend gloo, one thread per process. Both check every
sum. A round starts the processes anew, drops the first reduction of each size and takes the median of the others. Without
--python, torch is installed into target/bench-venv.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

import result

ROOT = result.ROOT
EXAMPLE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "latency"
VENV = ROOT / "target" / "bench-venv"
WORLDS = (2, 4)
LATENCY = 1_000
SIZES = {LATENCY: 101, 25_000_000: 7, 330_000_000: 3}
ABORTED = 25_000_000
ABORTS = 20
ABORT_GOAL = 0.01
GOALS = {("shm", True): 0.2, ("tcp", True): 1.0, ("shm", False): 3.0, ("tcp", False): 1.2}


def be_peer(rank: int, world: int, port: int) -> None:
    """One rank of the peer's; rank 0 prints the seconds of every reduction, by size."""
    import torch
    import torch.distributed as distributed

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    distributed.init_process_group("gloo", rank=rank, world_size=world)
    seconds = {}
    for size, times in SIZES.items():
        tensor = torch.empty(size // 4)
        seconds[size] = []
        for turn in range(times):
            tensor.fill_(rank + 1 + turn % 7)
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(tensor)
            seconds[size].append(time.perf_counter() - began)
            # Who is done earlier must not take the processor from the others with its check.
            distributed.barrier()
            expected = sum(rank + 1 + turn % 7 for rank in range(world))
            assert bool((tensor == expected).all()), "a wrong sum"
    if rank == 0:
        print(json.dumps(seconds))
    distributed.destroy_process_group()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def peer(python: pathlib.Path, world: int) -> dict[int, float]:
    port = str(free_port())
    command = [python, __file__, "--peer", str(world), port]
    others = [subprocess.Popen([*command, str(rank)]) for rank in range(1, world)]
    first = subprocess.run([*command, "0"], check=True, capture_output=True, text=True)
    assert all(process.wait() == 0 for process in others)
    return {int(size): statistics.median(seconds[1:]) for size, seconds in json.loads(first.stdout).items()}


def ours(world: int, transport: str) -> dict[int, float]:
    medians = {}
    for size, times in SIZES.items():
        choice = ["--world", str(world), "--transport", transport, "--bytes", str(size), "--times", str(times)]
        run = subprocess.run([EXAMPLE, *choice], check=True, capture_output=True, text=True)
        medians[size] = statistics.median([float(line) for line in run.stdout.split()][1:])
    return medians


def aborts(world: int, transport: str) -> list[float]:
    choice = ["--world", str(world), "--transport", transport, "--bytes", str(ABORTED), "--times", str(ABORTS)]
    run = subprocess.run([EXAMPLE, "--operation", "abort", *choice], check=True, capture_output=True, text=True)
    return [float(line) for line in run.stdout.split()]


def report_aborts(note: str) -> bool:
    met = []
    for world in WORLDS:
        for transport in ("shm", "tcp"):
            runs = aborts(world, transport)
            longest = f"{note}; the longest took {max(runs):.3g} s"
            met.append(result.write(f"all_reduce_abort_{transport}_{world}_ranks", runs, "s", "lower", ABORT_GOAL, note=longest))
    return all(met)


def copy_rate() -> float:
    """Bytes a second that one core copies from memory to memory, in GB/s."""
    source, target = bytearray(330_000_000), bytearray(330_000_000)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        memoryview(target)[:] = source
        rates.append(len(source) / (time.perf_counter() - began) / 1e9)
    return statistics.median(rates)


def python_with_torch() -> pathlib.Path:
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "numpy"], check=True)
    return python


def report(world: int, transport: str, size: int, rounds: list[tuple[float, float]], note: str) -> bool:
    latency = size == LATENCY
    bus = 2 * (world - 1) / world * size / 1e9
    pairs = rounds if latency else [(bus / mine, bus / theirs) for mine, theirs in rounds]
    ratios = [mine / theirs for mine, theirs in pairs]
    against = {
        "peer": "Gloo",
        "peer_value": statistics.median([theirs for _, theirs in pairs]),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
    }
    kind = f"latency_{transport}" if latency else f"bandwidth_{transport}_{size // 1_000_000}mb"
    name, unit, better = f"all_reduce_{kind}_{world}_ranks", "s" if latency else "GB/s", "lower" if latency else "higher"
    return result.write(name, [mine for mine, _ in pairs], unit, better, GOALS[transport, latency], against, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--only-aborts", action="store_true", help="leave the comparison out")
    parser.add_argument("--peer", nargs=3, type=int, metavar=("WORLD", "PORT", "RANK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        world, port, rank = arguments.peer
        return be_peer(rank, world, port)
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "collective", "--example", "latency"], cwd=ROOT, check=True)
    if arguments.only_aborts:
        sys.exit(0 if report_aborts(f"load average at the start {os.getloadavg()[0]:.1f}") else 1)
    python = arguments.python or python_with_torch()
    rate = copy_rate()
    print(f"one core copies {rate:.3g} GB/s from memory to memory")
    note = f"one core copied {rate:.3g} GB/s; load average at the start {os.getloadavg()[0]:.1f}"
    rounds: dict[tuple[int, str, int], list[tuple[float, float]]] = {}
    for _ in range(arguments.rounds):
        for world in WORLDS:
            theirs = peer(python, world)
            for transport in ("shm", "tcp"):
                for size, seconds in ours(world, transport).items():
                    rounds.setdefault((world, transport, size), []).append((seconds, theirs[size]))
    met = [report(world, transport, size, pairs, note) for (world, transport, size), pairs in rounds.items()]
    met.append(report_aborts(note))
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
