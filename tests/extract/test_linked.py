# SPDX-License-Identifier: GPL-2.0-only
"""The linker's opinion: linked to the places of the new object's, a carried function has the same bytes as there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from extracted_mutations import Made, functions, make
from snippets import Compiler

from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.object.view import ObjectView

_OUTSIDE = 0x40000000


def _run(*command: str | Path) -> str:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout


def _link(path: Path, output: Path, defined: dict[str, int], starts: dict[str, int]) -> None:
    words = [f"--defsym={name}={address:#x}" for name, address in defined.items()]
    # A script, for the linker's own would put .text.foo into .text.
    lines = [f"{name} {address:#x} : {{ *({name}) }}" for name, address in starts.items()]
    script = output.with_suffix(".lds")
    script.write_text("SECTIONS {\n" + "\n".join([*lines, "/DISCARD/ : { *(*) }"]) + "\n}\n")
    _run("ld", "-e0", "--no-check-sections", "--build-id=none", "-T", script, *words, "-o", output, path)


def _symbols(path: Path) -> dict[str, int]:
    rows = re.findall(r"^([0-9a-f]+) \w (\S+)$", _run("nm", path), re.MULTILINE)
    return {name: int(address, 16) for address, name in rows}


def _bytes(path: Path, section: str, place: Path) -> bytes:
    _run("objcopy", "-O", "binary", f"--only-section={section}", path, place)
    return place.read_bytes()


def differing(new: Path, made: Made, directory: Path) -> list[str]:
    """Return the functions of an extracted object that are linked otherwise than those of ``new``."""
    out, linked, other = directory / "out.o", directory / "new.linked", directory / "out.linked"
    out.write_bytes(made.data)
    missing = [name for kind, name in re.findall(r"^ +(\w) (\S+)$", _run("nm", new), re.MULTILINE) if kind in "Uw"]
    defined = {name: _OUTSIDE + 0x100 * at for at, name in enumerate(missing)}
    homes = {".text": 0x1000000, ".text.unlikely": 0x2000000, ".data": 0x3000000, ".bss": 0x4000000}
    _link(new, linked, defined, homes)
    places = {**_symbols(linked), **defined}
    view, names = made.needed.view, {}
    for main in made.needed.functions:
        for part in view.family(main):
            name = view.part_name(part)
            where = ".text." if part == main else ".text.unlikely."
            names[where + name] = name
    starts = {section: places[name] for section, name in names.items()}
    wanted = {name: places[name] for name in made.needed.outside}
    _link(out, other, wanted, starts)
    found = []
    for section, name in names.items():
        size = next(view.size(part) for part in functions_and_parts(made) if view.part_name(part) == name)
        home = ".text" if starts[section] < homes[".text.unlikely"] else ".text.unlikely"
        offset = starts[section] - homes[home]
        original = _bytes(linked, home, directory / "bytes")[offset : offset + size]
        if _bytes(other, section, directory / "bytes") != original:
            found.append(name)
    return found


def functions_and_parts(made: Made) -> Iterable[int]:
    """Yield the parts of all functions that were carried."""
    for main in made.needed.functions:
        yield from made.needed.view.family(main)


_PROGRAM = """
#define noinline __attribute__((noinline))
int outside(int); extern int table[64]; extern int weak(int) __attribute__((weak));
static int state = 4, many[9];
static noinline int first(int x) { asm volatile(""); return x * 3 + table[x] + state++; }
static noinline int second(int x) { asm volatile(""); return first(x) ^ outside(many[x]); }
int third(int x) { static int calls; if (x > 10) return second(x + 1) ^ x; return first(x) - calls++; }
int fourth(int x) { return x ? third(x - 1) : outside(2); }
int (*fifth(int x))(int) { return x ? second : first; }
int sixth(int x) { many[x & 7] = 3; return weak ? weak(x) : state; }
"""


@pytest.mark.parametrize(
    "names", [("first",), ("second", "third"), ("fourth",), ("fifth",), ("sixth",), ("third", "sixth")]
)
def test_the_linker_sees_no_difference(cc: Compiler, tmp_path: Path, names: tuple[str, ...]) -> None:
    path = cc.object(_PROGRAM)
    view = ObjectView(str(path))
    made = make(
        Correlated(view, view),
        RelocatedObject(view),
        [part for part in functions(view) if view.part_name(part) in names],
    )
    assert not made.needed.refused
    assert differing(path, made, tmp_path) == []


def test_and_would_see_one(gcc: Compiler, tmp_path: Path) -> None:
    path = gcc.object(_PROGRAM)
    view = ObjectView(str(path))
    [part] = [part for part in functions(view) if view.part_name(part) == "sixth"]
    made = make(Correlated(view, view), RelocatedObject(view), [part])
    at = made.data.index((0xFFFFFFFFFFFFFFFC).to_bytes(8, "little"))  # the addend -4 of a call
    wrong = made._replace(data=made.data[:at] + (0xFFFFFFFFFFFFFFFB).to_bytes(8, "little") + made.data[at + 8 :])
    assert differing(path, wrong, tmp_path) == ["sixth"]
