#!/usr/bin/env python3
"""Sweeps through the engine, in virtual time: trials dispatched a second, memory of a trial, time over the ideal.

`cargo build --release -p domain --example engine_bench` first. Writes sweep_dispatch, sweep_bytes and sweep_makespan.
"""

import json
import subprocess
import sys

import result

PROGRAM = result.ROOT / "target" / "release" / "examples" / "engine_bench"
RUNS = 3


def run(trials: int, slots: int) -> dict:
    program = sys.argv[1] if len(sys.argv) > 1 else str(PROGRAM)
    command = [program, str(trials), str(slots)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    large = [run(100_000, 16) for _ in range(RUNS)]
    halves = "; ".join(
        f"{r['trials_per_second_first_half']:.0f} then {r['trials_per_second_second_half']:.0f} a second, "
        f"{r['bytes_per_trial_second_half']} bytes in the second half"
        for r in large
    )
    rates = [r["trials_per_second"] for r in large]
    note = "100000 trials on 16 slots, each with all its events, in processor time of one thread; by halves: " + halves
    result.write("sweep_dispatch", rates, "trials a second", "higher", 1000, note=note)
    note = "growth of the resident memory over 100000 trials"
    result.write("sweep_bytes", [r["bytes_per_trial"] for r in large], "bytes a trial", "lower", 2048, note=note)
    over = [100 * run(10_000, 16)["over_ideal"] for _ in range(RUNS)]
    note = "10000 trials of a second on 16 slots, in virtual time: messages take none, so this is what placement loses"
    result.write("sweep_makespan", over, "percent over the ideal", "lower", 1, note=note)


if __name__ == "__main__":
    main()
