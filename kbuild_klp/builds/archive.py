# SPDX-License-Identifier: GPL-2.0-only
"""The checksums of a whole tree in one file, to ship beside System.map and to compare with later.

A zip file, so that anybody can look into it: `units` (one link unit a line: name, then its objects, separated by
tabs), `settings` (what it was built with), and the checksum file of each object under `objects/`. The same checksums
give the same archive, byte for byte.
"""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kbuild_klp.builds.side import Build
from kbuild_klp.containers.replacing import replacing
from kbuild_klp.errors import BadSumFileError, KlpError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.tree import LinkUnit

ARCHIVE_VERSION = 1
_DATE = (1980, 1, 1, 0, 0, 0)
_REMAKE = "export it again"
_MOST_GROWTH = 32  # settings shrink to a fifth, checksums to a half


@dataclass(frozen=True)
class Archive:
    """Content of an archive: ``sums`` are the bytes of the checksum file of each object that has one."""

    units: list[LinkUnit]
    settings: Settings
    sums: Mapping[str, bytes]


def save(path: str | os.PathLike[str], content: Archive) -> None:
    """Write an archive, whole or not at all; raises OSError, and KlpError for names that no archive can hold."""
    members = {
        "version": f"kbuild-klp archive {ARCHIVE_VERSION}\n".encode(),
        "settings": json.dumps(asdict(content.settings), indent=1, sort_keys=True).encode(),
        "units": "".join("\t".join((unit.name, *unit.objects)) + "\n" for unit in content.units).encode(
            "utf-8", "surrogateescape"
        ),
    }
    members |= {f"objects/{name}": data for name, data in sorted(content.sums.items())}
    try:
        with replacing(Path(path)) as temporary, zipfile.ZipFile(temporary, "w") as file:
            for name, data in members.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                file.writestr(info, data)
    except UnicodeEncodeError as error:
        raise KlpError(f"the name of {error.object!r} is not UTF-8", file=path) from None


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Return True when the file at ``path`` looks like an archive (a zip file)."""
    try:
        if not Path(path).is_file():  # a FIFO would wait for somebody to write into it
            return False
        with Path(path).open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def load(path: str | os.PathLike[str]) -> Archive:
    """Read an archive; raises BadSumFileError when it is damaged, foreign or of another version."""
    name = os.fspath(path)
    try:
        with zipfile.ZipFile(name) as file:
            _check_sizes(file.infolist(), Path(name).stat().st_size)
            version = file.read("version").decode()
            if version != f"kbuild-klp archive {ARCHIVE_VERSION}\n":
                raise BadSumFileError(f"is {version.strip()!r}, not version {ARCHIVE_VERSION}", file=name, hint=_REMAKE)
            settings = _parse_settings(file.read("settings"))
            units = []
            for line in _text(file.read("units")).split("\n")[:-1]:
                unit, *objects = line.split("\t")
                units.append(LinkUnit(unit, tuple(objects)))
            sums = {
                member.removeprefix("objects/"): file.read(member)
                for member in file.namelist()
                if member.startswith("objects/")
            }
    except OSError as error:
        raise BadSumFileError(f"cannot be read: {error.strerror or error}", file=name, hint=_REMAKE) from None
    except _ZIP_ERRORS as error:
        reason = f"{error}".strip("'\"\n") or type(error).__name__
        raise BadSumFileError(f"not an archive of kbuild-klp, or damaged: {reason}", file=name, hint=_REMAKE) from None
    return Archive(units, settings, sums)


# What zipfile raises for damaged files, besides its own error (RuntimeError: encrypted, or an unknown method).
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what `save` never writes; raises ValueError. Digests do not shrink, so little means little here too."""
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("unknown compression")
    if sum(member.file_size for member in members) > _MOST_GROWTH * size + (1 << 20):
        raise ValueError("its content is too large for its size")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _parse_settings(data: bytes) -> Settings:
    settings = Settings(**json.loads(data))
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not isinstance(value, str) and (value is not None or field.name in ("architecture", "configuration")):
            raise ValueError(f"settings: {field.name} is no text")
    return settings


class ArchiveBuild(Build):
    """An archive from `kbuild-klp export`: checksums only."""

    def __init__(self, path: str, content: Archive | None = None) -> None:
        super().__init__(path)
        self._content = content or load(path)

    def units(self) -> list[LinkUnit]:
        """Return the link units of the archived tree."""
        return self._content.units

    def sums(self, name: str) -> bytes | None:
        """Return the checksum file of an object."""
        data = self._content.sums.get(name)
        if data is None:
            self.failed[name] = f"{self.label}: {name}: is listed, but has no checksums"
        return data

    def settings(self) -> Settings | None:
        """Return what the archived tree was built with."""
        return self._content.settings
