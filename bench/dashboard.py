#!/usr/bin/env python3
"""The page of the dashboard: how soon it shows what happened, how soon it answers, what it weighs.

`cargo build --release -p cli` first, and `npm ci` in dashboard/web; needs Chromium (`/usr/bin/chromium`, or
PHALANX_CHROMIUM) and a machine that has nothing else to do. Real runs train beside the browser meanwhile. Writes page_answers,
page_shows and page_bytes; `bench/dashboard.py PHALANX` measures another program.
"""

import json
import os
import subprocess
import sys
import tempfile

import result

PROGRAM = result.ROOT / "target" / "release" / "phalanx"
CHECKS = result.ROOT / "dashboard" / "web" / "tests" / "run.mjs"
RUNS = 3


def run(program: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        pattern = "--test-name-pattern=/ten thousand trials|live|the page is small/"
        environment = {**os.environ, "PHALANX_PAGE_OUT": folder}
        subprocess.run(["node", str(CHECKS), program, pattern], check=True, env=environment, stdout=subprocess.DEVNULL)
        with open(os.path.join(folder, "figures.json"), encoding="utf-8") as figures:
            return {name: figure["value"] for name, figure in json.load(figures).items()}


def main() -> None:
    runs = [run(sys.argv[1] if len(sys.argv) > 1 else str(PROGRAM)) for _ in range(RUNS)]
    slowest = "; ".join(f"{r['interaction with 10,000 trials, slowest']:.0f} ms" for r in runs)
    note = "from the event to the frame with its result, median of filtering, sorting, choosing and scrolling; slowest: " + slowest
    answers = [r["interaction with 10,000 trials, median"] for r in runs]
    result.write("page_answers", answers, "ms", "lower", 100, note=note)
    shows = [{name: value for name, value in r.items() if name.startswith("until the page shows")} for r in runs]
    worst = [max(r, key=r.get) for r in shows]
    note = f"after the coordinator has it, the slowest of {len(shows[0])} kinds of events: " + "; ".join(worst)
    result.write("page_shows", [r[name] for r, name in zip(shows, worst)], "ms", "lower", 1000, note=note)
    note = "all files of the page as they come, compressed"
    result.write("page_bytes", [r["transfer of the page"] for r in runs], "kB", "lower", 250, note=note)


if __name__ == "__main__":
    main()
