# SPDX-License-Identifier: GPL-2.0-only
"""Broken and hostile objects, through the whole way from file to checksums: an answer or our error, nothing else."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import compile_object

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.batch import compute
from kbuild_klp.errors import BadObjectError, KlpError

_SECTION = {"name": (0, 4), "type": (4, 4), "flags": (8, 8), "addr": (16, 8), "offset": (24, 8), "size": (32, 8)}
_SECTION |= {"link": (40, 4), "info": (44, 4), "align": (48, 8), "entsize": (56, 8)}
_NUMBERS: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    0xFF,
    0xFF00,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 33,
    1 << 40,
    (1 << 63) - 1,
)
_NUMBERS += (1 << 63, (1 << 64) - 24, (1 << 64) - 1)
_TABLES = (2, 4, 18)  # SHT_SYMTAB, SHT_RELA, SHT_SYMTAB_SHNDX
_MEMORY = 1 << 30


class Mutator:
    """An object, and what can be broken in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()
        self.headers = int.from_bytes(self.data[40:48], "little")
        self.count = int.from_bytes(self.data[60:62], "little")
        self.tables = []
        for index in range(self.count):
            at = self.headers + 64 * index
            kind, (offset, size) = self.data[at + 4], struct.unpack_from("<QQ", self.data, at + 24)
            if kind in _TABLES and size:
                self.tables.append((offset, size))

    def field(self, section: int, name: str, value: int, data: bytearray) -> None:
        offset, width = _SECTION[name]
        at = self.headers + 64 * section + offset
        data[at : at + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")

    def mutate(self, choose: Callable[[int], int]) -> bytes:
        """Break one to four things; ``choose(n)`` gives a number below n."""
        data = bytearray(self.data)
        for _ in range(1 + choose(4)):
            what = choose(5)
            if what == 0:
                data[choose(64)] = choose(256)
            elif what == 1:
                names = tuple(_SECTION)
                self.field(choose(self.count), names[choose(len(names))], _NUMBERS[choose(len(_NUMBERS))], data)
            elif what == 2:
                data[self.headers + choose(64 * self.count)] = choose(256)
            elif what == 3:
                offset, size = self.tables[choose(len(self.tables))]
                width = (1, 2, 4, 8)[choose(4)]
                at = offset + choose(size - 8)
                value = _NUMBERS[choose(len(_NUMBERS))] & ((1 << 8 * width) - 1)
                data[at : at + width] = value.to_bytes(width, "little")
            else:
                data[choose(len(data))] = choose(256)
        return bytes(data)


@pytest.fixture(scope="module")
def mutator(sample: Path) -> Mutator:
    return Mutator(sample)


def _written_again(content: sum_file.SumFile) -> bytes:
    return sum_file.dump(content.architecture, content.table, map(sum_file.entry_line, content.entries))


@pytest.fixture
def checked(tmp_path: Path) -> Callable[[bytes], KlpError | None]:
    """Compute the checksums of some bytes; returns the error if there is one."""
    file = tmp_path / "broken.o"

    def check(data: bytes) -> KlpError | None:
        file.write_bytes(data)
        try:
            computed = compute(str(file))
        except KlpError as error:
            assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
            return error
        # What was computed can be written and read again.
        assert _written_again(sum_file.load(computed.data, "x")) == computed.data
        return None

    return check


def test_cut_at_every_length(mutator: Mutator, checked: Callable[[bytes], KlpError | None]) -> None:
    # Between the tables' own ends nothing depends on the exact place.
    for length in (*range(130), *range(130, len(mutator.data), 7)):
        assert isinstance(checked(mutator.data[:length]), BadObjectError), length


_FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(st.data())
def test_tables_with_some_fields_broken(
    mutator: Mutator, checked: Callable[[bytes], KlpError | None], data: st.DataObject
) -> None:
    checked(mutator.mutate(lambda below: data.draw(st.integers(0, below - 1))))


@_FUZZ
@given(st.binary(max_size=400))
def test_any_bytes_behind_a_good_start(
    mutator: Mutator, checked: Callable[[bytes], KlpError | None], tail: bytes
) -> None:
    checked(mutator.data[:20] + tail)


@_FUZZ
@given(st.binary(max_size=200))
def test_any_bytes(checked: Callable[[bytes], KlpError | None], data: bytes) -> None:
    assert isinstance(checked(data), BadObjectError)


_IN_LITTLE_MEMORY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from kbuild_klp.checksum.batch import compute
from kbuild_klp.errors import KlpError
answers = errors = 0
for name in sys.argv[1:]:
    try:
        compute(name)
        answers += 1
    except KlpError:
        errors += 1
print(answers, errors)
"""


def test_many_mutants_in_little_memory(mutator: Mutator, tmp_path: Path) -> None:
    """Whatever a header says, no more is allocated than the file is worth."""
    rnd = random.Random(6)
    paths = []
    for number in range(1500):
        paths.append(tmp_path / f"{number}.o")
        paths[-1].write_bytes(mutator.mutate(rnd.randrange))
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY.format(memory=_MEMORY), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(map(int, done.stdout.split())) == len(paths)


# -- what is broken, by name ------------------------------------------------------------------------------------------


def _set(offset: int, value: bytes) -> Callable[[Mutator], bytes]:
    return lambda mutator: mutator.data[:offset] + value + mutator.data[offset + len(value) :]


def _section(kind: int, name: str, value: int) -> Callable[[Mutator], bytes]:
    """Set one field of the first section of a type."""

    def broken(mutator: Mutator) -> bytes:
        index = next(i for i in range(mutator.count) if mutator.data[mutator.headers + 64 * i + 4] == kind)
        data = bytearray(mutator.data)
        mutator.field(index, name, value, data)
        return bytes(data)

    return broken


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda m: b"", "empty file"),
        (lambda m: b"!<arch>\n" + m.data, "an archive, not an object"),
        (lambda m: b"!<thin>\n", "an archive, not an object"),
        (lambda m: b"BC\xc0\xde" + m.data, "LLVM bitcode"),
        (lambda m: b"\xde\xc0\x17\x0b" + m.data, "LLVM bitcode"),
        (lambda m: b"int main(void);\n", "not an ELF file"),
        (lambda m: m.data[:20], "truncated: 20 bytes"),
        (_set(4, b"\1"), "not a 64-bit object"),
        (_set(5, b"\2"), "not a big-endian object, as its header says"),
        (_set(5, b"\3"), "neither a little-endian nor a big-endian object"),
        (_set(16, b"\2\0"), "not a relocatable object"),
        (_set(18, b"\x28\0"), "ELF machine 40 is not supported"),
        (_set(40, bytes(8)), "no section header table"),
        (_set(40, b"\xff" * 8), "section header table ends at"),
        (_set(58, b"\x28\0"), "section header entries of 40 bytes"),
        (_set(62, b"\xf0\xf0"), "section name table 61680 does not exist"),
        (_section(2, "entsize", 0), "section .symtab: entry size"),
        (_section(2, "entsize", 16), "section .symtab: entry size"),
        (_section(2, "size", 1 << 62), "section .symtab"),
        (_section(2, "link", 0xFFFF), "section .symtab: string table 65535 does not exist"),
        (_section(4, "entsize", 0), "section .rela.text: entry size"),
        (_section(4, "info", 0xFFFFFF), "section .rela.text: applies to section 16777215"),
        (_section(4, "size", 24 << 40), "ends at"),
        (_section(4, "type", 9), "SHT_REL"),
        (_section(4, "type", 0x40000014), "section .rela.text: SHT_CREL relocations are not supported"),
        (_section(4, "type", 0x60000001), "section .rela.text: type 0x60000001 relocations are not supported"),
        (_section(1, "size", 1 << 30), "header table"),
        (_section(1, "offset", 1 << 30), "section .text: ends at"),
        (_section(8, "size", 1 << 50), "larger than any address space"),
        (_section(3, "size", 1), "string table"),
    ],
)
def test_the_message_names_what_is_broken(
    mutator: Mutator, checked: Callable[[bytes], KlpError | None], broken: Callable[[Mutator], bytes], says: str
) -> None:
    error = checked(broken(mutator))
    assert isinstance(error, BadObjectError)
    assert says in str(error)
    assert error.hint


def test_all_sections_over_the_same_bytes(checked: Callable[[bytes], KlpError | None], mutator: Mutator) -> None:
    data = bytearray(mutator.data)
    for index in range(1, mutator.count):
        if data[mutator.headers + 64 * index + 4] == 1:
            mutator.field(index, "offset", 0, data)
            mutator.field(index, "size", len(data), data)
            mutator.field(index, "flags", 2, data)
    assert isinstance(checked(bytes(data)), BadObjectError)


def test_what_is_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.o"
    os.mkfifo(fifo)
    for path, says in ((fifo, "not a regular file"), (tmp_path, "s a directory"), (tmp_path / "x.o", "No such file")):
        with pytest.raises(BadObjectError, match=says):
            compute(str(path))
    loop = tmp_path / "loop.o"
    loop.symlink_to(loop)
    with pytest.raises(BadObjectError, match="symbolic links"):
        compute(str(loop))


def test_a_sparse_file_as_large_as_the_disk_allows(mutator: Mutator, tmp_path: Path) -> None:
    path = tmp_path / "sparse.o"
    path.write_bytes(mutator.data)
    os.truncate(path, 1 << 43)  # the headers are good, the mapping may or may not be possible
    try:
        compute(str(path))
    except KlpError as error:
        assert error.file == str(path)


# -- no broken objects, only strange ones -----------------------------------------------------------------------------


def test_a_chain_of_anonymous_data_longer_than_the_stack(tmp_path: Path) -> None:
    length = 20_000
    records = "".join(f".L{i}: .quad .L{(i + 1) % length}\n" for i in range(length))
    source = f'.section .rodata,"a"\n{records}.text\n.globl f\n.type f,@function\nf: movq $.L0,%rax\nret\n.size f,.-f\n'
    path = compile_object(source, tmp_path / "chain.o", language="assembler")
    entries = sum_file.load(compute(str(path)).data, "x").entries
    assert [entry.name for entry in entries if entry.kind == "function"] == ["f"]


def test_thousands_of_symbols_at_one_place(tmp_path: Path) -> None:
    source = ".text\n" + "".join(f".globl g{i}\ng{i}:\n" for i in range(20_000)) + "ret\n"
    path = compile_object(source, tmp_path / "many.o", language="assembler")
    assert sum(entry.kind == "function" for entry in sum_file.load(compute(str(path)).data, "x").entries) == 1


def test_names_that_are_no_text(tmp_path: Path) -> None:
    source = '.section "odd_name", "aw"\n.globl tab_new_line_, bad\ntab_new_line_: .quad 1\nbad: .quad tab_new_line_\n'
    path = compile_object(source, tmp_path / "names.o", language="assembler")
    data = path.read_bytes()
    for name, odd in ((b"odd_name", b"odd\xffname"), (b"tab_new_line_", b"tab\tnew\nline\\"), (b"bad", b"\xc0\x80!")):
        data = data.replace(name, odd)
    path.write_bytes(data)
    data = compute(str(path)).data
    content = sum_file.load(data, "x")
    assert [entry.name for entry in content.entries if entry.kind == "data"] == ["tab\tnew\nline\\", "\udcc0\udc80!"]
    assert _written_again(content) == data
