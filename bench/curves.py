#!/usr/bin/env python3
"""Records learning curves for bench/tables.py: trains a grid, bench/curves/NAME.yaml, and writes bench/curves/NAME.parquet.

    cargo build --release && python3 bench/curves.py digits-wide

`digits-vit`: 576 Vision Transformers on the digits, 27 epochs each, about a quarter of an hour on two free cores.
`digits-wide`: 528 of them over a wider space, 81 epochs each, about half an hour. Both train at a constant rate and are
evaluated after every epoch. The files are kept with the sources, so that this need not be repeated. One row for each trial:
its configuration, its steps, and as lists the steps of its evaluations, their losses and accuracies. The metadata of a file
says where it comes from. `--state-dir` goes on with a sweep that was interrupted.
"""

import argparse
import collections
import json
import os
import pathlib
import sqlite3
import struct
import subprocess
import sys
import tempfile

import result

CURVES = result.ROOT / "bench" / "curves"
TABLES = ("digits-vit", "digits-wide")


def python_with_pyarrow() -> str:
    """An interpreter that has pyarrow: this one, or that of a virtual environment that is made when there is none."""
    try:
        import pyarrow  # noqa: F401

        return sys.executable
    except ModuleNotFoundError:
        folder = pathlib.Path(tempfile.gettempdir()) / "phalanx-bench-tables"
        python = folder / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", "pyarrow"], check=True)
        return str(python)


def evaluations(state: pathlib.Path) -> dict[str, list[tuple[int, float, float]]]:
    """Step, loss and accuracy of all evaluations of all runs. Read from the database: asking for 576 runs one by one is slow."""

    def number(bits: int) -> float:
        return struct.unpack("<d", struct.pack("<q", bits))[0]

    found = collections.defaultdict(list)
    with sqlite3.connect(f"file:{state / 'phalanx.db'}?mode=ro", uri=True) as database:
        query = "SELECT run, step, loss, accuracy FROM records WHERE kind = 1 AND rolled_back = 0 ORDER BY run, step"
        for run, step, loss, accuracy in database.execute(query):
            found[run].append((step, number(loss), number(accuracy)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--binary", default=str(result.ROOT / "target" / "release" / "phalanx"))
    parser.add_argument("--state-dir", type=pathlib.Path)
    parser.add_argument("--commit", help="the commit that the binary was built from, if it is not this one")
    arguments = parser.parse_args()
    python = python_with_pyarrow()
    if python != sys.executable:
        os.execv(python, [python, *sys.argv])
    import pyarrow
    import pyarrow.parquet

    file, table_file = CURVES / f"{arguments.table}.yaml", CURVES / f"{arguments.table}.parquet"
    state = arguments.state_dir or pathlib.Path(tempfile.mkdtemp(prefix="phalanx-curves-"))

    def phalanx(*command: str) -> dict:
        text = subprocess.run([arguments.binary, *command, "--state-dir", str(state)], capture_output=True, text=True, check=True).stdout
        return json.loads(text)

    if not (state / "phalanx.db").exists():
        command = [arguments.binary, "sweep", str(file), "--state-dir", str(state)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    sweep = phalanx("sweep", "show", arguments.table, "--json")
    version = subprocess.run([arguments.binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    curves = evaluations(state)
    rows = []
    for trial in sorted(sweep["trials"], key=lambda trial: trial["number"]):
        steps, losses, accuracies = zip(*curves[trial["run"]])
        rows.append(
            {
                "trial": trial["number"],
                **trial["configuration"],
                "step": steps,
                "eval_loss": losses,
                "eval_accuracy": accuracies,
            }
        )
    table = pyarrow.Table.from_pylist(rows)
    for index, name in enumerate(table.column_names):
        if pyarrow.types.is_list(table.schema.field(index).type):
            kind = pyarrow.int32() if name == "step" else pyarrow.float32()
            table = table.set_column(index, name, table.column(index).cast(pyarrow.list_(kind)))
    origin = {
        "what": "learning curves of small Vision Transformers, one row for each configuration of a grid",
        "data": "UCI optical recognition of handwritten digits, as in datasets/digits; part of it held out, see the sweep",
        "recorded with": f"{version}, commit {arguments.commit or result.commit()}, bench/curves.py",
        "machine": result.machine(),
        "sweep": file.read_text(),
    }
    table = table.replace_schema_metadata({key: value.encode() for key, value in origin.items()})
    pyarrow.parquet.write_table(table, table_file, compression="zstd")
    print(f"{table_file.relative_to(result.ROOT)}: {table.num_rows} trials, {table_file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
