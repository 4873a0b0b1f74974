# SPDX-License-Identifier: GPL-2.0-only
"""Signatures of modules, for kernels that load no module without (scripts/Makefile.modinst puts them there)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from klptest.console import run


def _settings(tree: Path) -> Mapping[str, str]:
    lines = (tree / ".config").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


def wants_signatures(tree: Path) -> bool:
    """Whether a built kernel looks for signatures."""
    return _settings(tree).get("CONFIG_MODULE_SIG") == "y"


def sign(tree: Path, module: Path, target: Path, log: Path) -> None:
    """Write a module with the signature of a built kernel's own key; raises TroubleError."""
    settings = _settings(tree)
    key = settings["CONFIG_MODULE_SIG_KEY"]
    program = ["scripts/sign-file", settings["CONFIG_MODULE_SIG_HASH"], key, "certs/signing_key.x509"]
    run([*program, module, target], log, cwd=tree)
