"""Gathers ptxas's reports (-Xptxas=-v) into one table: kernel, architecture, registers, spills, stack, shared memory.

python cuda_resources.py OUT.csv REPORT...
"""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

COLUMNS = ["kernel", "arch", "registers", "spill_stores", "spill_loads", "stack", "shared", "serialized"]


def kernels(text: str):
    """A row for each kernel of a report; serialized: 1 where ptxas lets no two products of a warpgroup overlap."""
    serialized = set(re.findall(r"wgmma\.mma_async instructions are serialized .* function '([^']+)'", text))
    for part in text.split("Compiling entry function '")[1:]:
        name, arch = re.match(r"([^']+)' for '([^']+)'", part).groups()
        part = part.partition("Compiling entry function")[0]
        # The kernel's own line; functions that it calls come after it.
        stack, stores, loads = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()
        registers = re.search(r"Used (\d+) registers", part).group(1)
        shared = re.search(r"(\d+) bytes smem", part)
        yield [name, arch, registers, stores, loads, stack, shared.group(1) if shared else "0",
               str(int(name in serialized))]


def main(out: str, *reports: str) -> None:
    rows = sorted(row for path in reports for row in kernels(Path(path).read_text(encoding="utf-8")))
    if shutil.which("c++filt"):
        names = subprocess.run(["c++filt"], input="\n".join(row[0] for row in rows), capture_output=True, text=True)
        for row, name in zip(rows, names.stdout.splitlines(), strict=True):
            row[0] = re.sub(r"^void |\(anonymous namespace\)::|tw::cuda::|\(.*\)$", "", name)
    with open(out, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main(*sys.argv[1:])
