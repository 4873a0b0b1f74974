# SPDX-License-Identifier: GPL-2.0-only
"""`python3 -m kbuild_klp` is `kbuild-klp`."""

import os
import sys

if sys.version_info < (3, 10):  # noqa: UP036 - make runs us by what there is
    other = "; name another with KLP_PYTHON=" if os.environ.get("KLP_PYTHON") else ""
    sys.exit(f"kbuild-klp: {sys.executable} is Python {sys.version.split()[0]}, and 3.10 is needed{other}")

from kbuild_klp.cli.main import run

run()
