"""One format for every benchmark: a JSON file in bench/results/ and a line on the terminal.

Fields: name, value, unit, better ("higher" or "lower"), goal, met, runs (every single measurement), machine, date, commit;
with a peer also peer, peer_value, ratio (ours / peer's) and spread (lowest and highest ratio of the alternating pairs).
"""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def machine() -> str:
    model = platform.processor() or "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return f"{model}, {os.cpu_count()} cores, {memory_kib / 2**20:.0f} GiB, {platform.system()} {platform.release()}"


def commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    changed = [line for line in git("status", "--porcelain").splitlines() if not line[3:].startswith("bench/results/")]
    return git("rev-parse", "HEAD").strip() + (" with uncommitted changes" if changed else "")


def write(name: str, runs: list[float], unit: str, better: str, goal: float, peer: dict | None = None, note: str = "") -> bool:
    """Writes the median of `runs`. `peer` holds peer, peer_value, ratio and spread; then the goal is one for the ratio."""
    value = statistics.median(runs)
    judged = peer["ratio"] if peer else value
    met = judged >= goal if better == "higher" else judged <= goal
    result = {
        "name": name,
        "value": value,
        "unit": unit,
        "better": better,
        "goal": goal,
        "met": met,
        **(peer or {}),
        "runs": runs,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }
    if note:
        result["note"] = note
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    sign = ">=" if better == "higher" else "<="
    against = f", {judged:.3g} times {peer['peer']}" if peer else ""
    verdict = "met" if met else "MISSED"
    low, high = min(runs), max(runs)
    print(f"{name}: {value:.4g} {unit} (median of {len(runs)}, {low:.4g} to {high:.4g}){against}; goal {sign} {goal:g}: {verdict}")
    return met
