# SPDX-License-Identifier: GPL-2.0-only
"""The checksum file: what goes in comes out; what is damaged is refused by name, place and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_128_hexdigest

from kbuild_klp.checksum import sum_file
from kbuild_klp.checksum.entry import Entry
from kbuild_klp.checksum.sum_file import FORMAT_VERSION
from kbuild_klp.errors import BadSumFileError
from kbuild_klp.object.symbol_id import SymbolId

# Names as the reader gives them: UTF-8, or bytes that are none as surrogates.
_NAMES = st.one_of(
    st.binary(min_size=1, max_size=30).map(lambda data: data.replace(b"\0", b"0").decode("utf-8", "surrogateescape")),
    st.text("\\\t\n\r ab.\v\f\x1c\x85\u2028", min_size=1, max_size=12),
)
_HEX = st.text("0123456789abcdef", min_size=8, max_size=8)
_SYMBOLS = st.builds(SymbolId, _NAMES, st.one_of(st.just(""), _NAMES), st.integers(1, 3), st.integers(1, 3))
_LISTS = st.lists(_SYMBOLS, max_size=3).map(tuple)
_ENTRIES = st.builds(
    Entry,
    st.sampled_from(["function", "data", "section"]),
    _SYMBOLS,
    _NAMES,
    st.integers(0, 1 << 63),
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.just("00000000.-.-.-"),
    st.one_of(st.just(""), _HEX),
    _LISTS,
    _LISTS,
)


def _dump(entries: list[Entry], table: int = 1) -> bytes:
    return sum_file.dump("x86_64", table, map(sum_file.entry_line, entries))


@settings(max_examples=300, deadline=None)
@given(st.lists(_ENTRIES, max_size=5), st.integers(0, 99))
def test_what_goes_in_comes_out(entries: list[Entry], table: int) -> None:
    data = _dump(entries, table)
    content = sum_file.load(data, "x")
    assert (content.architecture, content.table, sorted(content.entries)) == ("x86_64", table, sorted(entries))
    assert data.count(b"\n") == len(entries) + 1
    assert _dump(content.entries, table) == data
    assert _dump(entries[::-1], table) == data, "the order in which entries are made is in the file"


def _entry(**changes: object) -> Entry:
    entry = Entry("function", SymbolId("f"), ".text", 24, "0" * 32, "0.1.2.-")
    return entry._replace(**changes)  # type: ignore[arg-type]


def test_the_form_that_people_read() -> None:
    entries = [
        _entry(),
        _entry(symbol=SymbolId("g"), lines="0a"),
        _entry(symbol=SymbolId("h"), uses=(SymbolId("a.1"), SymbolId("b", "core.c", 1, 2), SymbolId("c, d", "e.c", 3))),
        _entry(symbol=SymbolId("i", "core.c", 2), aliases=(SymbolId("j"),)),
    ]
    lines = _dump(entries).decode().splitlines()
    assert lines[0].startswith(f"# kbuild-klp {FORMAT_VERSION} x86_64 table=1 digest=")
    # What an entry does not have is not written.
    assert lines[1] == "function\tf\t.text\t24\t" + "0" * 32 + "\t0.1.2.-"
    assert lines[2].endswith("\t0.1.2.-\tlines=0a")
    assert lines[3].endswith("\t0.1.2.-\tuses=a.1 b,core.c,1,2 c\\c\\sd,e.c,3")
    assert lines[4].endswith("\t0.1.2.-\taliases=j\tfile=core.c\tsource=2")


def test_the_example_is_of_this_version() -> None:
    assert f"# kbuild-klp {FORMAT_VERSION} x86_64" in (sum_file.__doc__ or "")
    answers = (Path(__file__).resolve().parents[2] / "docs/answers.md").read_text("utf-8")
    assert f"# kbuild-klp {FORMAT_VERSION} x86_64 table={sum_file.table_version()} " in answers


DATA = _dump([_entry(), _entry(symbol=SymbolId("g"))])
HEAD = f"# kbuild-klp {FORMAT_VERSION} x86_64 table=1 ".encode()
OTHER_VERSION = DATA.replace(b"klp %d " % FORMAT_VERSION, b"klp %d " % (FORMAT_VERSION + 1))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_byte_can_change_unnoticed(place: int, change: int) -> None:
    damaged = bytearray(DATA)
    damaged[place] ^= change
    with pytest.raises(BadSumFileError) as caught:
        sum_file.load(bytes(damaged), "DIR/.f.o.klp.cmd")
    assert str(caught.value).startswith("DIR/.f.o.klp.cmd: line ")
    assert "klp-checksums" in str(caught.value.hint)


@pytest.mark.parametrize("length", range(len(DATA)))
def test_no_cut_goes_unnoticed(length: int) -> None:
    with pytest.raises(BadSumFileError):
        sum_file.load(DATA[:length], "x")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    for text in (data, DATA[:30] + data, DATA + data if data else b""):
        with pytest.raises(BadSumFileError):
            _ = sum_file.load(text, "x").entries


def _signed(head: bytes, body: bytes) -> bytes:
    return head + b"digest=" + xxh3_128_hexdigest(head + body).encode() + b"\n" + body


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (OTHER_VERSION, f"x: line 1: format version {FORMAT_VERSION + 1}, this program reads {FORMAT_VERSION}"),
        (_signed(b"# kbuild-klp 9999 future table=1 ", b"other\n"), "x: line 1: format version 9999"),
        (_signed(HEAD, b"function\tf\n"), "x: line 2: not an entry"),
        (_signed(HEAD, b"a\tb\tc\tmany\te\tf\n"), "x: line 2: not an entry"),
        (_signed(HEAD, b"\t".join([b"1"] * 10) + b"\n"), "x: line 2: not an entry"),
        (_signed(HEAD, b"a\tb\tc\t1\te\tf"), "x: line 2: not an entry"),
        (_signed(HEAD.replace(b"=1", b"=" + b"9" * 5000), b""), "x: line 1"),
        (_signed(b"# kbuild-klp " + b"9" * 5000 + b" x86_64 table=1 ", b""), "x: line 1"),
        (_signed(HEAD.replace(b"x86_64", b"\xff"), b""), "x: line 1"),
        (b"", "x: line 1: not a checksum file, or a truncated one"),
        (DATA.replace(b"\tf\t", b"\tF\t"), "x: line 1: content does not match its digest"),
    ],
)
def test_the_message(data: bytes, says: str) -> None:
    with pytest.raises(BadSumFileError) as caught:
        _ = sum_file.load(data, "x").entries
    assert str(caught.value).startswith(says)
    assert caught.value.hint


def test_write_sets_the_time_of_the_object(tmp_path: Path) -> None:
    path = tmp_path / ".f.o.klp.cmd"
    sum_file.write(str(path), DATA, 1_234_567_891_000_000_123)
    assert path.read_bytes() == DATA
    assert path.stat().st_mtime_ns == 1_234_567_891_000_000_123
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("step", ["utime", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / ".f.o.klp.cmd"
    sum_file.write(str(path), DATA, 1)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises((KeyboardInterrupt, OSError)):
            sum_file.write(str(path), b"new", 2)
    assert path.read_bytes() == DATA
    assert path.stat().st_mtime_ns == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_nothing_half(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    temporary = tmp_path / f".f.o.klp.cmd.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        sum_file.write(str(tmp_path / ".f.o.klp.cmd"), DATA, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_current_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    table = sum_file.table_version()
    path.write_bytes(_dump([_entry()] * 100, table))
    assert sum_file.is_current(str(path))
    for content in (b"", b"# kbuild-klp", OTHER_VERSION):
        path.write_bytes(content)
        assert not sum_file.is_current(str(path))
    path.write_bytes(_dump([], table + 1))
    assert not sum_file.is_current(str(path))
    assert not sum_file.is_current(str(tmp_path / "absent"))
    assert not sum_file.is_current(str(tmp_path))
