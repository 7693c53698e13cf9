"""Time the default run as a user meets it: wall time and memory of the whole process tree.

    python benchmarks/bench_workflow.py [--cores N] [--stages help,dry-run,dataset,report,again]
    python benchmarks/bench_workflow.py --against CHECKOUT [--repeats N]

Prints one Markdown table. The run goes to a temporary folder that is removed at the end. Machines differ and are noisy:
compare with the same command on the same machine. The second form times what a user waits for before anything runs, in
this checkout and in another one by turns, and gives their ratio.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def measure(command: list[str | Path], place: Path, source: Path = ROOT) -> tuple[float, float]:
    """Run a command; give its wall time in seconds and the peak of the summed resident memory of its tree, in GB.

    Resident pages that processes share (libraries, forked memory) count once per process, so the sum is an upper bound.
    """
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(source / "src")}
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT)
        watched, peak = psutil.Process(process.pid), 0.0
        while process.poll() is None:
            total = 0
            try:
                for member in [watched, *watched.children(recursive=True)]:
                    try:
                        total += member.memory_info().rss
                    except psutil.NoSuchProcess:
                        continue
            except psutil.NoSuchProcess:
                break
            peak = max(peak, total / 1e9)
            time.sleep(0.1)
        code = process.wait()
        wall = time.perf_counter() - start
        if code:
            output.seek(0)
            raise SystemExit(f"{command} ended with {code}:\n{output.read().decode()[-4000:]}")
    return wall, peak


def compare(other: Path, repeats: int) -> None:
    """Print the times of ``--help`` and of a dry run in this checkout beside those in another one."""
    print(f"{platform.machine()}, Python {platform.python_version()}, {repeats} runs by turns\n")
    print("| what | this checkout, s (median) | the other, s (median) | ratio of medians |\n|---|---|---|---|")
    for label in ("cityheads --help", "snakemake -n, nothing done yet"):
        walls: dict[Path, list[float]] = {ROOT: [], other: []}
        for _ in range(repeats):
            for checkout, times in walls.items():
                with tempfile.TemporaryDirectory(prefix="cityheads-bench-") as folder:
                    shutil.copytree(checkout / "config", Path(folder) / "config")
                    command: list[str | Path] = [BIN / "cityheads", "--help"]
                    if label.startswith("snakemake"):
                        command = [BIN / "snakemake", "--snakefile", checkout / "Snakefile", "-n", "--cores", "2"]
                        command += ["--workflow-profile", checkout / "profiles/default"]
                    times.append(measure(command, Path(folder), checkout)[0])
        here, there = (statistics.median(walls[checkout]) for checkout in (ROOT, other))
        print(f"| {label} | {here:.2f} | {there:.2f} | {here / there:.2f} |", flush=True)


def main() -> None:
    """Run the stages in order and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--stages", default="help,dry-run,dataset,report,again")
    parser.add_argument("--against", type=Path, help="another checkout, to be timed by turns with this one")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.against:
        compare(arguments.against.resolve(), arguments.repeats)
        return
    place = Path(tempfile.mkdtemp(prefix="cityheads-bench-"))
    try:
        shutil.copytree(ROOT / "config", place / "config")
        snakemake: list[str | Path] = [BIN / "snakemake", "--snakefile", ROOT / "Snakefile"]
        snakemake += ["--workflow-profile", ROOT / "profiles/default", "--cores", str(arguments.cores)]
        stages: dict[str, tuple[str, list[str | Path], int, str]] = {
            "help": ("cityheads --help", [BIN / "cityheads", "--help"], 5, "0.5 s"),
            "dry-run": ("snakemake -n, nothing done yet", [*snakemake, "-n"], 3, "5 s"),
            "dataset": ("everything before training", [*snakemake, "dataset"], 1, "90 s"),
            "report": ("training to report, after that", snakemake, 1, "600 s with the row above; 4 GB"),
            "again": ("snakemake -n, everything done", [*snakemake, "-n"], 3, "5 s"),
        }
        print(f"{platform.machine()}, {arguments.cores} cores, Python {platform.python_version()}\n")
        print(
            "| what | runs | wall, s (median) | peak memory of the tree, GB | aim |\n|---|---|---|---|---|", flush=True
        )
        for name in arguments.stages.split(","):
            label, command, repeats, aim = stages[name]
            figures = [measure(command, place) for _ in range(repeats)]
            wall = statistics.median(figure[0] for figure in figures)
            print(
                f"| {label} | {repeats} | {wall:.2f} | {max(figure[1] for figure in figures):.2f} | {aim} |", flush=True
            )
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
