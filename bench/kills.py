#!/usr/bin/env python3
"""A sweep in lock step whose coordinator and workers are killed at random moments, against the same sweep left alone.

    cargo build --release && python3 bench/kills.py [--kills 50] [--seed 0] [PHALANX]

Trains the sweep once with one worker, undisturbed. Then again with two workers, in a folder of its own, and sends SIGKILL to
the whole process group at random moments, each time followed by `phalanx resume`. Ends with 1 unless both have the same trials, the
same facts about each (`phalanx explain --json`), the same SHA-256 of the weights of its last checkpoint and of all others that both have left; unless
`phalanx replay` derives the same decisions; and unless `phalanx audit` finds every sample of every trial read exactly once.
Writes bench/results/soak-kills.txt.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "datasets" / "digits"
TRIALS = 80
SWEEP = f"""version: 1
name: swept
seed: 3
job:
  data: {{format: idx, images: {json.dumps(str(DIGITS / "images-idx3-ubyte.gz"))}, labels: {json.dumps(str(DIGITS / "labels-idx1-ubyte.gz"))}, pixel_max: 16}}
  model: {{type: vit, image: [8, 8], channels: 1, patch: 2, dim: 32, depth: 4, heads: 2, classes: 10}}
  train: {{steps: 243, global_batch: 64}}
  eval: {{every_steps: 81}}
  checkpoint: {{every_steps: 9}}
space:
  schedule.lr: {{log_uniform: [1.0e-4, 0.1]}}
  model.dim: {{integer: {{low: 32, high: 96, step: 16}}}}
objectives: [{{metric: eval_loss}}]
searcher: {{type: tpe, startup: 8}}
scheduler: {{type: asha, min: {{steps: 9}}, max: {{steps: 243}}, eta: 3}}
trials: {TRIALS}
lock_step: true
"""


class Place:
    """A folder with a state directory of its own."""

    def __init__(self, program: pathlib.Path, folder: pathlib.Path):
        self.program, self.folder = program, folder
        folder.mkdir()
        (folder / "sweep.yaml").write_text(SWEEP)

    def start(self, *arguments: str) -> subprocess.Popen:
        # A session of its own: what is killed is the coordinator with all its workers.
        output = (self.folder / "output.txt").open("ab")
        return subprocess.Popen(
            [self.program, *arguments], cwd=self.folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def read(self, *arguments: str) -> str:
        done = subprocess.run([self.program, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"phalanx {' '.join(arguments)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def finish(self, process: subprocess.Popen) -> None:
        if process.wait() != 0:
            sys.exit((self.folder / "output.txt").read_text()[-2000:])

    def outcome(self) -> dict:
        """All that must not depend on when and where it ran."""
        trials = json.loads(self.read("sweep", "show", "swept", "--json"))["trials"]
        outcome = {}
        for trial in trials:
            del trial["worker_seconds"]
            run = f"swept.{trial['number']}"
            weights = {c["step"]: c["weights_sha256"] for c in json.loads(self.read("checkpoint", "list", run, "--json"))}
            facts = json.loads(self.read("explain", f"swept/{trial['number']}", "--json"))["facts"]
            if not json.loads(self.read("audit", run, "--json"))["clean"]:
                sys.exit(f"audit of {run} is not clean: {self.read('audit', run)}")
            outcome[run] = {"trial": trial, "weights": weights, "facts": facts}
        return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phalanx", nargs="?", type=pathlib.Path, default=ROOT / "target" / "release" / "phalanx")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    program = arguments.phalanx.resolve()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="phalanx-kills-") as folder:
        alone = Place(program, pathlib.Path(folder) / "alone")
        began = time.monotonic()
        alone.finish(alone.start("sweep", "sweep.yaml", "--workers", "1", "--threads", "1"))
        undisturbed_s = time.monotonic() - began
        expected = alone.outcome()
        print(f"undisturbed: {undisturbed_s:.0f} s", flush=True)

        place = Place(program, pathlib.Path(folder) / "killed")
        process = place.start("sweep", "sweep.yaml", "--workers", "2", "--threads", "1")
        kills, after_the_end, began = 0, 0, time.monotonic()
        # So that about half of the time that it takes has passed when the last kill comes.
        longest = 1.3 * undisturbed_s / arguments.kills
        while kills < arguments.kills:
            try:
                # From before the first worker is there to the middle of many trials.
                process.wait(timeout=chance.uniform(0.05, longest))
                after_the_end += 1
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            if not (place.folder / ".phalanx").exists() or not knows(place):
                process = place.start("sweep", "sweep.yaml", "--workers", "2", "--threads", "1")
            else:
                process = place.start("resume", "swept", "--workers", "2", "--threads", "1")
        if after_the_end:
            said = (place.folder / "output.txt").read_text()[-1500:]
            sys.exit(f"the sweep ended with {process.returncode} after {kills} kills, too few: {said}")
        place.finish(process)
        killed_s = time.monotonic() - began
        found = place.outcome()
        different = [run for run in expected if run not in found or not is_same(expected[run], found[run])]
        if different or len(found) != len(expected):
            for run in different[:3]:
                print(f"{run}: alone {expected[run]}\n  killed {found.get(run)}")
            sys.exit(f"{len(different)} of {len(expected)} trials differ")
        replayed = place.read("replay", "swept").strip()
    facts = sum(len(outcome["facts"]) for outcome in found.values())
    weights = sum(len(outcome["weights"]) for outcome in found.values())
    said = (
        f"{kills} kills, seed {arguments.seed}: {len(found)} trials, {facts} facts and {weights} hashes of weights as undisturbed; "
        f"all audits clean; {replayed.splitlines()[0]}; {undisturbed_s:.0f} s alone on 1 worker, {killed_s:.0f} s killed on 2; "
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores"
    )
    print(said)
    (ROOT / "bench" / "results" / "soak-kills.txt").write_text(said + "\n")


def is_same(one: dict, other: dict) -> bool:
    """Which older checkpoints are left depends on how far ahead of their deletion a kill came; what is in them does not."""
    hashes, others = one["weights"], other["weights"]
    is_same_state = max(hashes, default=0) == max(others, default=0) and all(hashes[step] == others[step] for step in hashes.keys() & others.keys())
    return is_same_state and one["trial"] == other["trial"] and one["facts"] == other["facts"]


def knows(place: Place) -> bool:
    """Whether the sweep was acknowledged before the kill."""
    return subprocess.run([place.program, "sweep", "show", "swept"], cwd=place.folder, capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
