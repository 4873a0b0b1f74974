# SPDX-License-Identifier: GPL-2.0-only
"""Objects in the forms in which they are shipped are read as what they hold, and bad ones are refused in one line."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from kbuild_klp.containers import compression
from kbuild_klp.containers.compression import unpacked
from kbuild_klp.elf.reader import ObjectFile
from kbuild_klp.elf.writer import OutputSection, OutputSymbol, write_object
from kbuild_klp.errors import BadObjectError

HAS_ZSTD = any(map(importlib.util.find_spec, ("compression", "zstandard"))) or shutil.which("zstd") is not None

TEXT = bytes(range(256)) * 4000


def _xz(data: bytes) -> bytes:
    """Compress as scripts/Makefile.modinst does: --check=crc32 --lzma2=dict=1MiB."""
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=chain)


def _zstd(data: bytes) -> bytes:
    """Compress from a pipe: the size of the content is not in the header then."""
    if not HAS_ZSTD or not shutil.which("zstd"):
        pytest.skip("no zstd")
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


FORMS: dict[str, Callable[[bytes], bytes]] = {"xz": _xz, "gz": gzip.compress, "zst": _zstd}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _unpacked(path: Path, data: bytes) -> bytes:
    return bytes(unpacked(data, _written(path, data)))


def test_content(form: str, tmp_path: Path) -> None:
    packed = FORMS[form](TEXT)
    assert _unpacked(tmp_path / f"x.ko.{form}", packed) == TEXT
    assert _unpacked(tmp_path / "name_says_nothing", packed) == TEXT


def test_symbolic_link(form: str, tmp_path: Path) -> None:
    """A name of one's own for a module of a package: the program zstd passes links over."""
    packed = FORMS[form](TEXT)
    link = tmp_path / "link"
    link.symlink_to(_written(tmp_path / "x", packed))
    assert bytes(unpacked(packed, str(link))) == TEXT


def test_several_streams(form: str, tmp_path: Path) -> None:
    assert _unpacked(tmp_path / "x", FORMS[form](TEXT) + FORMS[form](b"more")) == TEXT + b"more"


def test_padding_of_xz(tmp_path: Path) -> None:
    assert _unpacked(tmp_path / "x", _xz(TEXT) + bytes(8) + _xz(b"more") + bytes(4)) == TEXT + b"more"


def test_what_is_not_compressed_is_itself(tmp_path: Path) -> None:
    for data in (b"", b"\x1f", b"\x7fELF", TEXT):
        assert unpacked(data, str(tmp_path)) is data


def test_cut_short(form: str, tmp_path: Path) -> None:
    packed = FORMS[form](TEXT)
    for length in (7, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BadObjectError, match=r"/x: (xz|gzip|zstd): .*; copy or download it again$") as raised:
            _unpacked(tmp_path / "x", packed[:length])
        assert "\n" not in str(raised.value)


def test_damaged(form: str, tmp_path: Path) -> None:
    packed = bytearray(FORMS[form](TEXT))
    for place in (9, len(packed) // 2, len(packed) - 6):
        packed[place] ^= 0xFF
        try:
            assert _unpacked(tmp_path / "x", bytes(packed)) == TEXT  # a field that says nothing of the content
        except BadObjectError as error:
            assert error.file == str(tmp_path / "x") and "\n" not in str(error)


def test_bomb(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MOST", 50 << 20)
    packed = FORMS[form](bytes(60 << 20))
    assert len(packed) < 1 << 20
    with pytest.raises(BadObjectError, match="holds more than 50 MiB"):
        _unpacked(tmp_path / "x", packed)


def test_xz_that_needs_too_much_memory(tmp_path: Path) -> None:
    packed = lzma.compress(TEXT, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}])
    # The dictionary size is one byte of the block header, under a CRC; 36 stands for 1 GiB.
    block = bytearray(packed[12:24])
    block[block.index(b"\x21\x01") + 2] = 36
    block[8:12] = zlib.crc32(bytes(block[:8])).to_bytes(4, "little")
    with pytest.raises(BadObjectError, match="xz: Memory usage limit"):
        _unpacked(tmp_path / "x", packed[:12] + bytes(block) + packed[24:])


def test_no_program_for_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("compression", "compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadObjectError) as raised:
        _unpacked(tmp_path / "x.ko.zst", b"\x28\xb5\x2f\xfd" + bytes(20))
    path = tmp_path / "x.ko.zst"
    install = "install the Python package zstandard, or the program zstd"
    assert str(raised.value) == f"{path}: zstd: nothing here can read it; {install}"


def test_object(form: str, tmp_path: Path) -> None:
    text = OutputSection(".text", 6, data=bytearray(b"\xc3" * 16))
    data = write_object(62, "little", [text], [OutputSymbol("f", text)])
    plain = ObjectFile.open(_written(tmp_path / "x.ko", data))
    packed = ObjectFile.open(_written(tmp_path / f"x.ko.{form}", FORMS[form](data)))
    assert packed.section_names == plain.section_names
    assert packed.section_bytes(1) == plain.section_bytes(1)
    assert not packed.has_changed()


@pytest.mark.parametrize("content", [b"", b"int main;\n", b"\x7fELF" + bytes(60)])
def test_something_else_in_it(form: str, tmp_path: Path, content: bytes) -> None:
    path = _written(tmp_path / "x", FORMS[form](content))
    with pytest.raises(BadObjectError) as raised:
        ObjectFile.open(path)
    assert str(raised.value).startswith(f"{path}: ")
