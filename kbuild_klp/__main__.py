# SPDX-License-Identifier: GPL-2.0-only
"""`python3 -m kbuild_klp` is `kbuild-klp`."""

from kbuild_klp.cli.main import run

run()
