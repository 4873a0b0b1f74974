#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a livepatch costs beside the module build: of two trees, and of many functions in many objects.

livepatch.py OLD NEW        two built trees, a few functions of NEW patched; OLD is the kernel that runs
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from costs import HEAD, FailedError, Row, attempt, lines_of
from extracted_mutations import functions, objects

from kbuild_klp.cli.main import main as klp
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.extract.beside import check
from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.laid_out import LaidOut
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.extract.side_tables import side_entries
from kbuild_klp.module.finished import check_linked
from kbuild_klp.module.post_link import post_link
from kbuild_klp.object.view import ObjectView

OBJECTS, EACH = 100, 3


def own(work: Callable[[], dict[str, int]]) -> None:
    """Do something, and print what it cost this process alone, programs that it runs left out: s, MB."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({**found, "cpu": cpu, "peak": after.ru_maxrss * 1024 / 1e6}))


def patch(old: str, new: str) -> dict[str, int]:
    """Make the livepatch of two trees."""
    with tempfile.TemporaryDirectory() as directory:
        output = f"{directory}/livepatch-it.ko"
        answer = io.StringIO()
        with redirect_stdout(answer):
            status = klp(["patch", old, new, "-o", output, "--json"])
        if status:
            sys.exit(f"kbuild-klp patch: exit status {status}")
        carried = json.loads(answer.getvalue())["carried"]
        return {"functions": sum(it["kind"] == "function" for it in carried)}


def many(tree: str) -> dict[str, int]:
    """Extract some functions of many objects, link them, and check all of it."""
    chance = random.Random(1)
    names = objects(Path(tree))
    chance.shuffle(names)
    count = 0
    made: list[bytes] = []
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            if len(made) == OBJECTS:
                break
            old, new = ObjectView(str(name)), ObjectView(str(name))
            mains = functions(new)
            if len(mains) < EACH:
                continue
            chosen = [(part, "changed") for part in chance.sample(mains, EACH)]
            needed = Needed(Correlated(old, new), RelocatedObject(new), chosen)
            if needed.refused:
                continue
            side = list(side_entries(needed))
            spelled = {outside: f".klp.sym.vmlinux.{outside},0" for outside in needed.outside}
            laid = LaidOut(needed, side, spelled, f"table_{len(made)}")
            data = laid.file()
            count += check(needed, laid, side, ObjectFile(data, str(name)))
            Path(directory, f"{len(made)}.o").write_bytes(data)
            made.append(data)
        linked = Path(directory, "linked.ko")
        command = ["ld", "-r", "-o", str(linked), *(f"{directory}/{number}.o" for number in range(len(made)))]
        subprocess.run(command, check=True)
        module = post_link(linked.read_bytes(), str(linked))
    relocations = check_linked(ObjectFile(module, "linked.ko"), made)
    return {"functions": count, "objects": len(made), "relocations": relocations}


def rows(old: str, new: str, runs: int) -> list[Row]:
    """Measure; raises FailedError."""

    def costs(*words: str) -> tuple[dict[str, float], float]:
        taken = [attempt([sys.executable, __file__, *words], all_output=True) for _ in range(runs)]
        if any(it.status for it in taken):
            raise FailedError(taken[0].text)
        found = [json.loads(it.text.splitlines()[-1]) for it in taken]
        best = min(found, key=lambda it: it["cpu"])
        return best, min(it.cost.wall for it in taken)

    few, wall = costs("--patch", old, new)
    lot, _ = costs("--many", old)
    what = f"{few['functions']:.0f} functions of two trees"
    about = f"{lot['functions']:.0f} functions in {lot['objects']:.0f} objects, {lot['relocations']:.0f} relocations"
    return [
        Row("what a livepatch takes after the incremental build", wall, 10, "s", what),
        Row("  of it comparison, extraction, checks, post-link: CPU", few["cpu"], 1.5, "s", what),
        Row("  its memory", few["peak"], 150, "MB"),
        Row("extraction, checks, post-link of many: CPU", lot["cpu"], 10, "s", about),
        Row("  its memory", lot["peak"], 400, "MB"),
    ]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="+", metavar="TREE", help="OLD and NEW")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--patch", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--many", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.patch:
        own(lambda: patch(*arguments.trees))
    elif arguments.many:
        own(lambda: many(arguments.trees[0]))
    else:
        print(HEAD)
        try:
            for row in rows(arguments.trees[0], arguments.trees[-1], arguments.runs):
                print(lines_of(row))
        except FailedError as error:
            sys.exit(f"livepatch.py: {error}")


if __name__ == "__main__":
    main()
