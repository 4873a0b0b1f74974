# SPDX-License-Identifier: GPL-2.0-only
"""A signature behind a finished module, as `make modules_install` would put it there (scripts/Makefile.modinst)."""

from __future__ import annotations

from pathlib import Path

from kbuild_klp.errors import KlpError
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.module.work import working_directory
from kbuild_klp.processes import run

_PROGRAM, _CERTIFICATE = "scripts/sign-file", "certs/signing_key.x509"
_MODULE, _SIGNED = "unsigned.ko", "signed.ko"
_ON_A_TOKEN = "pkcs11:"


def check_that_it_can_sign(tree: BuildTree) -> None:
    """See whether a tree has what signs its modules; raises KlpError, better before all work than after it."""
    kernel = tree.kernel
    if kernel is None or tree.setting("MODULE_SIG") is None:
        raise KlpError("was configured without CONFIG_MODULE_SIG", file=kernel or tree.root, hint="leave --sign out")
    for name in (_PROGRAM, _CERTIFICATE, _key(tree, kernel)):
        if not name.startswith(_ON_A_TOKEN) and not (kernel / name).is_file():
            raise KlpError(f"has no {name} to sign with", file=kernel, hint="build it, or sign the module yourself")


def signed(tree: BuildTree, data: bytes) -> bytes:
    """Return a module with its signature, by the tree's own program and key; raises KlpError."""
    kernel = tree.kernel
    assert kernel is not None
    digest = (tree.setting("MODULE_SIG_HASH") or "").strip('"')
    with working_directory() as directory:
        unsigned, result = directory / _MODULE, directory / _SIGNED
        unsigned.write_bytes(data)
        run([kernel / _PROGRAM, digest, _key(tree, kernel), _CERTIFICATE, unsigned, result], cwd=kernel)
        found = result.read_bytes() if result.is_file() else b""
    if not found.startswith(data) or len(found) == len(data):
        raise KlpError("did not sign the module", file=kernel / _PROGRAM, hint="try it by hand")
    return found


def _key(tree: BuildTree, kernel: Path) -> str:
    """Return the private key: a file in the object tree or else in the source (O= links to it), or one on a token."""
    key = (tree.setting("MODULE_SIG_KEY") or "").strip('"')
    return key if key.startswith(_ON_A_TOKEN) or (kernel / key).is_file() else f"source/{key}"
