#!/usr/bin/env python3
"""A coordinator under load: metrics from 64 workers, 500 viewers, queries of the dashboard, 10,000 trials of a sweep.

    cargo build --release --workspace --bins --examples && python3 bench/load.py

Everything runs on this machine: the workers, viewers and queries (coordinator/examples/load_bench.rs) take processor time from the
coordinator, so the figures are below what it can take. Writes load_points, load_query_p99 and load_memory.
"""

import argparse
import json
import pathlib
import subprocess

import result

RELEASE = result.ROOT / "target" / "release"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phalanx", type=pathlib.Path, default=RELEASE / "phalanx")
    parser.add_argument("--generator", type=pathlib.Path, default=RELEASE / "examples" / "load_bench")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--points", type=int, default=105_000, help="a second, of all workers together")
    arguments = parser.parse_args()
    runs = []
    for _ in range(arguments.runs):
        command = [arguments.generator, arguments.phalanx, arguments.seconds, 64, 500, 10_000, arguments.points]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout))
        print(json.dumps(runs[-1]))
    middle = sorted(runs, key=lambda run: run["query_ms"]["p99"])[len(runs) // 2]
    load = (
        f"{middle['workers']} workers, {middle['viewers']} viewers, {middle['trials']} trials, a query every 20 ms; acknowledged in "
        f"{middle['acknowledged_ms']['median']:.0f} ms (99 %: {middle['acknowledged_ms']['p99']:.0f} ms); the coordinator took "
        f"{middle['coordinator_cores']:.2f} cores"
    )
    paths = "; ".join(f"{path} {times['median']:.1f}, 99 % {times['p99']:.1f}" for path, times in middle["query_ms_by_path"].items())
    result.write("load_points", [r["points_per_second"] for r in runs], "durable points a second", "higher", 100_000, note=load)
    result.write("load_query_p99", [r["query_ms"]["p99"] for r in runs], "ms", "lower", 50, note=f"{load}. Median ms by path: {paths}")
    result.write("load_memory", [r["peak_mib"] for r in runs], "MiB", "lower", 300, note=load)


if __name__ == "__main__":
    main()
