# SPDX-License-Identifier: GPL-2.0-only
"""Archives of a tree's checksums: what goes in comes out, and what is damaged or hostile is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kbuild_klp.builds import archive
from kbuild_klp.builds.archive import Archive
from kbuild_klp.errors import BadSumFileError, KlpError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.tree import LinkUnit

SETTINGS = Settings("x86_64", "\nCONFIG_X86_64=y\n", "gcc 12", "6.12.0")
CONTENT = Archive(
    [LinkUnit("vmlinux", ("init/main.o", "fs/open.o")), LinkUnit("ext4", ("fs/ext4/a.o", "fs/open.o"))],
    SETTINGS,
    {"init/main.o": b"one", "fs/open.o": b"two" * 1000, "fs/ext4/a.o": b""},
)
_NAMES = st.text("abc/._- \u00fc\u20ac\x85\u2028'", min_size=1, max_size=20)
_FILES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _check(path: Path) -> BadSumFileError:
    with pytest.raises(BadSumFileError) as caught:
        archive.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.hint == "export it again"
    return caught.value


@_FILES
@given(
    st.lists(st.builds(LinkUnit, _NAMES, st.lists(_NAMES, max_size=4).map(tuple)), max_size=3),
    st.dictionaries(_NAMES, st.binary(max_size=50), max_size=4),
    st.builds(Settings, st.text(), st.text(), st.none() | st.text(), st.none() | st.text()),
)
def test_what_goes_in_comes_out(
    tmp_path: Path, units: list[LinkUnit], sums: dict[str, bytes], built_with: Settings
) -> None:
    path = tmp_path / "a.klp"
    content = Archive(units, built_with, sums)
    try:
        archive.save(path, content)
    except KlpError:
        return
    assert archive.is_archive(path)
    assert archive.load(path) == content


def test_the_same_checksums_give_the_same_bytes(tmp_path: Path) -> None:
    archive.save(tmp_path / "a", CONTENT)
    archive.save(tmp_path / "b", Archive(CONTENT.units, SETTINGS, dict(reversed(dict(CONTENT.sums).items()))))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not archive.is_archive(path)
    assert not archive.is_archive(tmp_path)
    path.write_bytes(b"\x7fELF")
    assert not archive.is_archive(path)
    _check(path)
    _check(tmp_path / "absent")
    _check(tmp_path)


@_FILES
@given(st.data())
def test_damaged_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.klp"
    archive.save(path, CONTENT)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # Half of the damage goes into the directory at the end, where zipfile believes what it reads.
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(len(content) - 300, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = archive.load(path)
    except BadSumFileError:
        return
    assert set(loaded.sums.values()) <= set(CONTENT.sums.values())  # zip's own checksums cover the content


@_FILES
@given(st.integers(0, 10_000))
def test_cut_anywhere(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.klp"
    archive.save(path, CONTENT)
    content = path.read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    _check(path)


def _zip(path: Path, compression: int = zipfile.ZIP_DEFLATED, /, **members: bytes) -> Path:
    good = {
        "version": b"kbuild-klp archive 1\n",
        "settings": b'{"architecture": "x86_64", "configuration": "", "built_by": null, "release": null}',
        "units": b"vmlinux\ta.o\n",
    }
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in (good | members).items():
            if data:
                file.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"version": b"kbuild-klp archive 2\n"}, "is 'kbuild-klp archive 2', not version 1"),
        ({"version": b""}, "version"),
        ({"version": b"\xff\xff"}, "codec"),
        ({"units": b""}, "units"),
        ({"settings": b"{"}, "damaged"),
        ({"settings": b"[]"}, "damaged"),
        ({"settings": b'{"architecture": 5}'}, "damaged"),
        ({"settings": b'{"architecture": 5, "configuration": "", "built_by": null, "release": null}'}, "is no text"),
        ({"settings": b'{"x": 5}'}, "damaged"),
        ({"settings": b"[" * 100_000}, "damaged"),
        ({"objects/a.o": bytes(50_000_000)}, "too large for its size"),
    ],
)
def test_other_zip_files(tmp_path: Path, members: dict[str, bytes], says: str) -> None:
    assert says in str(_check(_zip(tmp_path / "x.klp", **members)))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path: Path, method: int) -> None:
    assert "unknown compression" in str(_check(_zip(tmp_path / "x.klp", method)))


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.klp")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    assert "encrypted" in str(_check(path))


def test_a_member_larger_than_it_says(tmp_path: Path) -> None:
    path = _zip(tmp_path / "x.klp", **{"objects/a.o": bytes(50_000_000)})
    content = bytearray(path.read_bytes())
    for magic, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = content.rindex(
            magic, 0, content.rindex(b"objects/a.o") if magic == b"PK\1\2" else content.rindex(b"PK\1\2")
        )
        content[at + place : at + place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(content)
    _check(path)


def test_names_that_would_lie_elsewhere_are_only_names(tmp_path: Path) -> None:
    loaded = archive.load(_zip(tmp_path / "x.klp", **{"objects/../../etc/x.o": b"1", "objects//abs.o": b"2"}))
    assert loaded.sums == {"../../etc/x.o": b"1", "/abs.o": b"2"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.klp"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "a.klp"
    archive.save(path, CONTENT)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", fail)
        with pytest.raises((KeyboardInterrupt, OSError)):
            archive.save(path, Archive([], SETTINGS, {}))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_names_that_no_archive_can_hold(tmp_path: Path) -> None:
    with pytest.raises(KlpError, match="not UTF-8"):
        archive.save(tmp_path / "a.klp", Archive([], SETTINGS, {"\udcff.o": b"x"}))
    assert list(tmp_path.iterdir()) == []
