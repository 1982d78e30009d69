"""How fast it is: each measure in turn with its reference (A B B A ...), in one table.

A line's ratio is the median over the rounds of ours to the reference's of the same round, so that a
machine that slows down for a while slows both. docs/performance.md explains each line.
"""

import argparse
import json
import os
import platform
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cryptography
from cryptography.hazmat.backends.openssl import backend

from bench_chain import chain_lines, launch_lines
from bench_core import Line, Scale, absent
from bench_digest import digest_lines
from bench_growth import growth_lines, search_lines
from bench_ledger import ledger_lines
from bench_process import process_lines
from bench_snp import snp_lines
from bench_throughput import throughput_lines

GROUPS = (
    chain_lines,
    launch_lines,
    digest_lines,
    process_lines,
    ledger_lines,
    throughput_lines,
    search_lines,
    growth_lines,
    snp_lines,
)
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "MiB": 1.0}


def measured(line: Line, *, short: bool) -> dict[str, Any]:
    """Run both sides of a line in turn, and sum up."""
    line.ours()  # once each to warm up
    line.reference()
    pairs = []
    for number in range(min(line.rounds, 3) if short else line.rounds):
        # Whoever goes second may find a warmer cache: they take turns in that too.
        sides = (line.ours, line.reference) if number % 2 == 0 else (line.reference, line.ours)
        first, second = sides[0](), sides[1]()
        pairs.append((first, second) if number % 2 == 0 else (second, first))
    sums = {
        "rate": lambda ours, reference: reference / ours,
        "share": lambda ours, reference: ours / reference,
        "more": lambda ours, reference: ours - reference,
    }
    ratios = sorted(sums[line.ratio](*pair) for pair in pairs)
    factor = UNITS[line.unit]
    return {
        "name": line.name,
        "what": line.what,
        "against": line.against,
        "unit": line.unit,
        "ours": statistics.median(ours for ours, _ in pairs) * factor,
        "reference": statistics.median(reference for _, reference in pairs) * factor,
        "ratio": statistics.median(ratios),
        "spread": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "rounds": len(ratios),
        "reach": line.reach,
    }


def row(found: dict[str, Any]) -> str:
    """Write one line of the table."""
    low, high = found["spread"]
    return (
        f"| {found['what']} | {found['ours']:.4g} {found['unit']} | {found['against']} | "
        f"{found['reference']:.4g} {found['unit']} | **{found['ratio']:.2f}** | "
        f"{low:.2f} - {high:.2f} | {found['reach']} |"
    )


def machine() -> dict[str, object]:
    """Name what all this ran on."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text(),
        "sqlite": sqlite3.sqlite_version,
    }


@contextmanager
def scale_of(*, short: bool, long: bool) -> Iterator[Scale]:
    """Work in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sev-attest-bench-") as folder:
        yield Scale(folder=Path(folder), short=short, long=long)


def main() -> None:
    """Run the lines that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="small inputs, few rounds")
    parser.add_argument("--long", action="store_true", help="a ledger of a million sessions too")
    parser.add_argument("--json", metavar="FILE", help="write the figures here too")
    parser.add_argument("--only", metavar="NAME", default="", help="lines whose name begins so")
    given = parser.parse_args()
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print("\n| what | median | against | median | ratio | quartiles | reach |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found = []
    with scale_of(short=given.short, long=given.long) as scale:
        for group in GROUPS:
            for line in group(scale):
                if line.name.startswith(given.only):
                    found.append(measured(line, short=given.short))
                    print(row(found[-1]), flush=True)
    for name in absent:
        print(f"\nabsent: {name}")
    if given.json:
        document = {
            "schema": "sev-attest/bench/1",
            "short": given.short,
            "machine": facts,
            "lines": found,
            "absent": absent,
        }
        Path(given.json).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
