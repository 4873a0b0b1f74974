# SPDX-License-Identifier: GPL-2.0-only
"""The checksums of a whole tree in one file, to ship beside System.map and to compare with later.

A zip file, so that anybody can look into it: `units` (one link unit a line: name, then its objects, separated by
tabs), `settings` (what it was built with), and the checksum file of each object under `objects/`. The same checksums
give the same archive, byte for byte.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kbuild_klp.errors import BadSumFileError
from kbuild_klp.kernel.settings import Settings
from kbuild_klp.kernel.tree import LinkUnit

ARCHIVE_VERSION = 1
_DATE = (1980, 1, 1, 0, 0, 0)
_REMAKE = "export it again"


@dataclass(frozen=True)
class Archive:
    """Content of an archive: ``sums`` are the bytes of the checksum file of each object that has one."""

    units: list[LinkUnit]
    settings: Settings
    sums: Mapping[str, bytes]


def save(path: str | os.PathLike[str], content: Archive) -> None:
    """Write an archive, whole or not at all; raises OSError."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    members = {
        "version": f"kbuild-klp archive {ARCHIVE_VERSION}\n".encode(),
        "settings": json.dumps(asdict(content.settings), indent=1, sort_keys=True).encode(),
        "units": "".join("\t".join((unit.name, *unit.objects)) + "\n" for unit in content.units).encode(),
    }
    members |= {f"objects/{name}": data for name, data in sorted(content.sums.items())}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as file:
            for name, data in members.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                file.writestr(info, data)
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


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
            version = file.read("version").decode()
            if version != f"kbuild-klp archive {ARCHIVE_VERSION}\n":
                raise BadSumFileError(f"is {version.strip()!r}, not version {ARCHIVE_VERSION}", file=name, hint=_REMAKE)
            settings = Settings(**json.loads(file.read("settings")))
            units = []
            for line in file.read("units").decode().splitlines():
                unit, *objects = line.split("\t")
                units.append(LinkUnit(unit, tuple(objects)))
            sums = {
                member.removeprefix("objects/"): file.read(member)
                for member in file.namelist()
                if member.startswith("objects/")
            }
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise BadSumFileError(f"not an archive of kbuild-klp: {error}", file=name, hint=_REMAKE) from None
    return Archive(units, settings, sums)
