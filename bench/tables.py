#!/usr/bin/env python3
"""Searchers and ASHA on the recorded learning curves of bench/curves/ (see bench/curves.py).

    cargo build --release -p domain --example table_bench && python3 bench/tables.py

Each problem is a curve to be minimised for each configuration of a grid, and the score of one is the end of its curve. Of
`digits-wide`, a space as wide as a search that begins without knowing what works: `wide_loss`, the held-out loss over 81
epochs; `wide_error`, the share of wrong answers over 81 epochs; `wide_short`, the same over the first 27. Of `digits-vit`, where
most configurations are about as good and chance decides: `loss` and `error` over 27 epochs, `early_loss` over the first 9.

Part one plays our searchers and Optuna's on lookups of the score: the best after 50, 100 and 200 trials, one and ten at a
time. Part two is the median number of steps until random search has trained a configuration to the end whose score is within
1 % of the best in the table, against the same with ASHA (rungs after 1, 3, 9, 27 and 81 epochs with eta 3, and with eta 4),
configurations drawn at random in both. For errors the score is the share of right answers. ASHA never gets there where the good
configurations are not among the better ones early on. The goal is held against `digits-wide` with eta 3.

`--python` names an interpreter with Optuna and pyarrow, Optuna's runs are kept in `--peer-cache FILE`, `--no-peer` leaves them out, `--only tpe`
restricts the searchers.
"""

import argparse
import collections
import itertools
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import result
import search
from curves import CURVES

# Table, curve and epochs of each problem.
PROBLEMS = {
    "wide_loss": ("digits-wide", "loss", 81),
    "wide_error": ("digits-wide", "error", 81),
    "wide_short": ("digits-wide", "error", 27),
    "loss": ("digits-vit", "loss", 27),
    "error": ("digits-vit", "error", 27),
    "early_loss": ("digits-vit", "loss", 9),
}
GOAL_TABLE = "digits-wide"
# What is played of each searcher: problems, and trials at a time. A run of Optuna's Gaussian process takes half a minute.
PLAYED = {
    "random": (tuple(PROBLEMS), (1, 10)),
    "tpe": (tuple(PROBLEMS), (1, 10)),
    "gaussian_process": (("wide_loss", "wide_error", "wide_short"), (10,)),
}
WITHIN = 0.01
GOAL = 4.0
# What a loss counts as that is not finite.
DIVERGED = 1e9


def write_problems(folder: pathlib.Path) -> None:
    """Makes the files of the problems; runs under an interpreter that has pyarrow."""
    import pyarrow.parquet

    for problem, (table, kind, epochs) in PROBLEMS.items():
        rows = pyarrow.parquet.read_table(CURVES / f"{table}.parquet").to_pylist()
        space = [name for name in rows[0] if "." in name]
        rows.sort(key=lambda row: tuple(row[name] for name in space))
        sizes = [len({row[name] for row in rows}) for name in space]
        assert math.prod(sizes) == len(rows), f"{table} is not a whole grid"
        if kind == "error":
            losses = [[1 - accuracy for accuracy in row["eval_accuracy"][:epochs]] for row in rows]
        else:
            losses = [[loss if math.isfinite(loss) else DIVERGED for loss in row["eval_loss"][:epochs]] for row in rows]
        text = json.dumps({"sizes": sizes, "steps": rows[0]["step"][:epochs], "losses": losses})
        (folder / f"{problem}.json").write_text(text)


def good_enough(problem: str, losses: list[list[float]]) -> float:
    """The greatest loss whose score is within 1 % of the best."""
    best = min(curve[-1] for curve in losses)
    return 1 - (1 - WITHIN) * (1 - best) if PROBLEMS[problem][1] == "error" else (1 + WITHIN) * best


def lines_of(binary: str, *arguments: str) -> list[dict]:
    out = subprocess.run([binary, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def searches(arguments, folder: pathlib.Path, python: str) -> tuple[list[dict], list[str]]:
    known = search.read_runs(arguments.peer_cache)
    jobs = [
        {"searcher": s, "function": f"table:{folder / problem}.json", "pending": p, "seed": seed}
        for s in arguments.only or search.PEERS
        for seed in range(arguments.gp_seeds if s == "gaussian_process" else arguments.seeds)
        for problem, p in itertools.product(*PLAYED[s])
    ]

    def key(run: dict) -> tuple:
        return run["searcher"], pathlib.Path(run["function"].removeprefix("table:")).stem, run["pending"], run["seed"]

    have = {key(run) for run in known}
    missing = [job for job in jobs if key(job) not in have]
    if missing and not arguments.no_peer:
        known += [{**run, "function": f"table:{key(run)[1]}"} for run in search.peer_runs(python, missing)]
        search.write_runs(arguments.peer_cache, known)
    theirs = collections.defaultdict(list)
    asked = {key(job) for job in jobs}
    for run in (run for run in known if key(run) in asked):
        theirs[key(run)[:3]].append(run["best"])

    cells = []
    lines = ["| problem | searcher | pending | trials | ours | Optuna (seeds) | not worse | p |", "|---|---|---|---|---|---|---|---|"]
    for problem in PROBLEMS:
        for searcher in ("random", *(arguments.only or search.PEERS)):
            problems, at_a_time = PLAYED[searcher]
            for pending in at_a_time if problem in problems else ():
                seeds = f"0..{arguments.seeds}"
                runs = lines_of(arguments.binary, f"{folder / problem}.json", "search", searcher, str(pending), seeds)
                peers = theirs.get((searcher, problem, pending))
                for index, trials in enumerate(search.NOTED):
                    ours = [run["best"][index] for run in runs]
                    cell = {"problem": problem, "searcher": searcher, "pending": pending, "trials": trials}
                    shown = [problem, searcher, str(pending), str(trials)]
                    if peers:
                        cell |= {"peer": search.PEERS[searcher], **search.compared(ours, [best[index] for best in peers])}
                        shown += search.shown_cell(cell)
                    else:
                        cell["ours"] = search.quartiles(ours)
                        shown += [search.shown(cell["ours"]), "", "", ""]
                    cells.append(cell)
                    lines.append("| " + " | ".join(shown) + " |")
    return cells, lines


def quartile_runs(steps: list[int | None]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile as steps of single runs, so that some may be infinite."""
    ranked = sorted(math.inf if step is None else step for step in steps)
    return ranked[len(ranked) // 4], ranked[len(ranked) // 2], ranked[3 * len(ranked) // 4]


def halvings(arguments, folder: pathlib.Path) -> tuple[list[dict], list[str]]:
    cells = []
    lines = [
        "| problem | within 1 % | eta | steps of ASHA | steps of random search | ratio of medians |",
        "|---|---|---|---|---|---|",
    ]
    for problem in PROBLEMS:
        file = folder / f"{problem}.json"
        losses = json.loads(file.read_text())["losses"]
        good = good_enough(problem, losses)
        share = sum(curve[-1] <= good for curve in losses)
        for eta in (3, 4):
            runs = lines_of(arguments.binary, str(file), "halving", "random", str(eta), repr(good), f"0..{arguments.halving_seeds}")
            # What is never reached takes for ever; a median of that has the ratio 0.
            halving, random = (quartile_runs([run[key] for run in runs]) for key in ("halving", "random"))
            ratio = random[1] / halving[1]
            finite = [[None if math.isinf(x) else x for x in values] for values in (halving, random)]
            cells.append({"problem": problem, "eta": eta, "good": share, "halving": finite[0], "random": finite[1], "ratio": ratio})
            shown = [f"{middle:.0f} ({low:.0f} to {high:.0f})".replace("inf", "never") for low, middle, high in (halving, random)]
            lines.append(f"| {problem} | {share} of {len(losses)} | {eta} | {shown[0]} | {shown[1]} | {ratio:.2f} |")
    return cells, lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python")
    parser.add_argument("--binary", default=str(result.ROOT / "target" / "release" / "examples" / "table_bench"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gp-seeds", type=int, default=20)
    parser.add_argument("--halving-seeds", type=int, default=200)
    parser.add_argument("--peer-cache", type=pathlib.Path, default=search.KNOWN_RUNS)
    parser.add_argument("--only", action="append", choices=list(search.PEERS))
    parser.add_argument("--no-peer", action="store_true")
    arguments = parser.parse_args()
    python = search.peer_python(arguments.python)
    search.under_peer(python)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([python, str(pathlib.Path(__file__).resolve()), "--write", name], check=True)
        halving_cells, halving_lines = halvings(arguments, folder)
        cells, lines = searches(arguments, folder, python)
    head = [
        "# Searchers and ASHA on recorded learning curves",
        "",
        "Small Vision Transformers on the digits; the problems are described in bench/tables.py. Median (quartiles). Lower is better.",
        f"{arguments.seeds} seeds, {arguments.halving_seeds} of ASHA. {result.machine()}.",
        "",
    ]
    peers = [cell for cell in cells if "met" in cell]
    text = "\n".join([*head, *halving_lines, "", *([search.told(peers), ""] if peers else []), *lines])
    print(text)
    (result.RESULTS / "search-tables.md").write_text(text + "\n")

    ratios = [cell["ratio"] for cell in halving_cells if cell["eta"] == 3 and PROBLEMS[cell["problem"]][0] == GOAL_TABLE]
    unit = f"times fewer steps with ASHA than with random search, worst of the problems of {GOAL_TABLE}, eta 3"
    met = result.write("search-halving", [min(ratios)], unit, "higher", GOAL)
    path = result.RESULTS / "search-halving.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cells": halving_cells}, indent=2) + "\n")
    compared = [cell["met"] for cell in cells if "met" in cell]
    if compared:
        unit = "share of cells not significantly worse than Optuna's"
        met &= result.write("search-tables", [sum(compared) / len(compared)], unit, "higher", 1.0)
        path = result.RESULTS / "search-tables.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "cells": cells}, indent=2) + "\n")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_problems(pathlib.Path(sys.argv[2]))
    else:
        main()
