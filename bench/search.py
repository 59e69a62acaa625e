#!/usr/bin/env python3
"""Searchers beside Optuna's on known functions: the best loss after 50, 100 and 200 trials, with 1 (TPE alone), 10 and 100 at a time.

    cargo build --release -p domain --example search_bench && python3 bench/search.py

A median is no worse than Optuna's, or it is, and then the column p says how likely so much worse runs are between searchers that
are alike (Mann-Whitney U, one-sided): the goal is that no cell is significantly worse (p < 0.05), and of equal searchers each
would have half of the better medians. Over so many cells some fall below 0.05 by chance.

Trials finish in the order they began, and each is replaced when it finishes, on both sides. Optuna comes from a virtual
environment that is made when there is none; `--python PATH` names an interpreter that has it (with torch, for its
Gaussian process). `--only tpe` restricts the searchers, `--seeds`, `--gp-seeds` set how many runs. Optuna's are kept in `--peer-cache FILE`, which
this folder has; its Gaussian process takes up to a minute a run, and one at a time is left out there.
"""

import argparse
import collections
import concurrent.futures
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import result

NOTED = (50, 100, 200)
PENDING = {"tpe": (1, 10, 100), "gaussian_process": (10, 100)}
SIGNIFICANT = 0.05
BOUNDS = {
    "branin": [(-5.0, 10.0), (0.0, 15.0)],
    "hartmann6": [(0.0, 1.0)] * 6,
    "ackley10": [(-32.768, 32.768)] * 10,
    "rosenbrock5": [(-5.0, 10.0)] * 5,
}
OPTUNA = "5.0.0"
# Runs of that Optuna that need not be made again: a run follows from its seed.
KNOWN_RUNS = result.ROOT / "bench" / "peers" / f"optuna-{OPTUNA}.jsonl"
PEERS = {"tpe": "Optuna TPESampler", "gaussian_process": "Optuna GPSampler"}


def branin(x):
    bent = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return bent**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10


def hartmann6(x):
    height = [1.0, 1.2, 3.0, 3.2]
    slope = [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    centre = [
        [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
        [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
        [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
        [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
    ]
    hills = zip(height, slope, centre)
    return -sum(h * math.exp(-sum(a * (v - c) ** 2 for a, v, c in zip(s, x, p))) for h, s, p in hills)


def ackley10(x):
    squares = sum(v * v for v in x) / len(x)
    waves = sum(math.cos(2 * math.pi * v) for v in x) / len(x)
    return 20 + math.e - 20 * math.exp(-0.2 * math.sqrt(squares)) - math.exp(waves)


def rosenbrock5(x):
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in zip(x, x[1:]))


def objective(function: str):
    """What a trial of Optuna tries, and its loss. `table:FILE` is a table of bench/tables.py."""
    if function.startswith("table:"):
        table = json.loads(pathlib.Path(function.removeprefix("table:")).read_text())

        def look_up(trial) -> float:
            row = 0
            for index, size in enumerate(table["sizes"]):
                row = row * size + trial.suggest_int(f"x{index}", 0, size - 1)
            return table["losses"][row][-1]

        return look_up

    def compute(trial) -> float:
        bounds = enumerate(BOUNDS[function])
        return globals()[function]([trial.suggest_float(f"x{i}", low, high) for i, (low, high) in bounds])

    return compute


def play_peer(searcher: str, function: str, pending: int, seed: int) -> list[float]:
    """Optuna's best losses, with its defaults; runs under an interpreter that has it."""
    import warnings

    import optuna

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if searcher == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    else:
        sampler = optuna.samplers.GPSampler(seed=seed)
    study = optuna.create_study(sampler=sampler)
    loss_of = objective(function)
    running = collections.deque()
    best, history = math.inf, []
    while len(history) < NOTED[-1]:
        if len(running) == pending:
            trial, loss = running.popleft()
            study.tell(trial, loss)
            best = min(best, loss)
            history.append(best)
            continue
        trial = study.ask()
        running.append((trial, loss_of(trial)))
    return [history[n - 1] for n in NOTED]


def serve_peer() -> None:
    """Reads runs from standard input and prints their results; the other side of `peer_runs`."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps({**job, "best": play_peer(**job)}), flush=True)


def peer_python(given: str | None) -> str:
    if given:
        return given
    folder = pathlib.Path(tempfile.gettempdir()) / "phalanx-bench-search"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"optuna=={OPTUNA}", "scipy", "torch", "pyarrow"], check=True)
    return str(python)


def peer_runs(python: str, jobs: list[dict]) -> list[dict]:
    def serve(part: list[dict]) -> list[dict]:
        lines = "".join(json.dumps(job) + "\n" for job in part)
        command = [python, str(pathlib.Path(__file__).resolve()), "--serve"]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        out = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, env=one_thread).stdout
        return [json.loads(line) for line in out.splitlines()]

    processes = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        return [run for part in pool.map(serve, [jobs[i::processes] for i in range(processes)]) for run in part]


def read_runs(cache: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in cache.read_text().splitlines()] if cache.exists() else []


def write_runs(cache: pathlib.Path, runs: list[dict]) -> None:
    runs = sorted(runs, key=lambda run: (run["searcher"], run["function"], run["pending"], run["seed"]))
    cache.write_text("".join(json.dumps(run) + "\n" for run in runs))


def own_runs(binary: str, searcher: str, pending: int, seeds: int) -> list[dict]:
    out = subprocess.run([binary, searcher, str(pending), f"0..{seeds}"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return low, middle, high


def shown(values: tuple[float, float, float]) -> str:
    low, middle, high = values
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def compared(ours: list[float], theirs: list[float]) -> dict:
    """What a cell says: quartiles, whether the median is no worse, and how likely it is that runs of equals are so much worse.

    Medians closer than a thousandth of the peer's spread do not differ, nor those closer than a ten-thousandth of their size.
    """
    from scipy.stats import mannwhitneyu

    mine, peer = quartiles(ours), quartiles(theirs)
    better = mine[1] <= peer[1] + max(1e-3 * (peer[2] - peer[0]), 1e-4 * abs(peer[1]))
    chance = float(mannwhitneyu(ours, theirs, alternative="greater").pvalue) if set(ours) != set(theirs) else 1.0
    return {"ours": mine, "theirs": peer, "peer_seeds": len(theirs), "median_met": better, "p": chance, "met": chance >= SIGNIFICANT}


def shown_cell(cell: dict) -> list[str]:
    verdict = "yes" if cell["median_met"] else "no, by chance" if cell["met"] else "NO"
    return [shown(cell["ours"]), f"{shown(cell['theirs'])} ({cell['peer_seeds']})", verdict, f"{cell['p']:.2f}"]


def told(cells: list[dict]) -> str:
    better, worse = sum(cell["median_met"] for cell in cells), sum(not cell["met"] for cell in cells)
    return f"Of {len(cells)} cells {better} have a median no worse than Optuna's, and {worse} are significantly worse."


def summary(runs: list[dict]) -> dict[tuple, list[list[float]]]:
    """For each cell the best losses of all its runs, at each number of trials."""
    cells = collections.defaultdict(list)
    for run in runs:
        cells[run["searcher"], run["function"], run["pending"]].append(run["best"])
    return {key: [list(best) for best in zip(*bests)] for key, bests in cells.items()}


def under_peer(python: str) -> None:
    """Goes on under an interpreter that has SciPy."""
    try:
        import scipy  # noqa: F401
    except ModuleNotFoundError:
        os.execv(python, [python, *sys.argv])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python")
    parser.add_argument("--binary", default=str(result.ROOT / "target" / "release" / "examples" / "search_bench"))
    parser.add_argument("--only", action="append", choices=list(PEERS))
    parser.add_argument("--seeds", type=int, default=48)
    parser.add_argument("--gp-seeds", type=int, default=20)
    parser.add_argument("--peer-cache", type=pathlib.Path, default=KNOWN_RUNS)
    arguments = parser.parse_args()
    under_peer(peer_python(arguments.python))
    searchers = arguments.only or list(PEERS)

    def seeds(searcher: str) -> int:
        return arguments.gp_seeds if searcher == "gaussian_process" else arguments.seeds

    cache = arguments.peer_cache
    theirs = read_runs(cache)
    known = {(r["searcher"], r["function"], r["pending"], r["seed"]) for r in theirs}
    wanted = [
        {"searcher": s, "function": f, "pending": p, "seed": seed}
        for s in searchers
        for seed in range(seeds(s))
        for p in PENDING[s]
        for f in BOUNDS
    ]
    jobs = [job for job in wanted if tuple(job.values()) not in known]
    if jobs:
        theirs += peer_runs(peer_python(arguments.python), jobs)
        write_runs(cache, theirs)
    asked = {tuple(job.values()) for job in wanted}
    theirs = [run for run in theirs if (run["searcher"], run["function"], run["pending"], run["seed"]) in asked]
    ours = [run for s in searchers for p in PENDING[s] for run in own_runs(arguments.binary, s, p, seeds(s))]

    our_cells, their_cells = summary(ours), summary(theirs)
    rows, cells = [], []
    for (searcher, function, pending), mine in our_cells.items():
        peers = their_cells.get((searcher, function, pending))
        if peers is None:
            continue
        for trials, ours_here, theirs_here in zip(NOTED, mine, peers):
            cell = {"searcher": searcher, "peer": PEERS[searcher], "function": function, "pending": pending, "trials": trials}
            cell |= compared(ours_here, theirs_here)
            cells.append(cell)
            rows.append("| " + " | ".join([searcher, function, str(pending), str(trials), *shown_cell(cell)]) + " |")
    lines = [
        "# Searchers beside Optuna's",
        "",
        "Best loss after so many trials: median (quartiles). Lower is better.",
        f"{', '.join(f'{seeds(s)} seeds of {s}' for s in searchers)}; Optuna's in brackets. {result.machine()}.",
        told(cells),
        "",
        "| searcher | function | pending | trials | ours | Optuna | not worse | p |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    print("\n".join(lines))
    name = "search" if searchers == list(PEERS) else "search-" + "-".join(searchers)
    share = sum(cell["met"] for cell in cells) / len(cells)
    met = result.write(name, [share], "share of cells not significantly worse than Optuna's", "higher", 1.0)
    path = result.RESULTS / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cells": cells}, indent=2) + "\n")
    (result.RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve_peer()
    else:
        main()
