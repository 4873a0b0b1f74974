# SPDX-License-Identifier: GPL-2.0-only
"""BTF ids: numbers of types in the BTF of the whole kernel, or of a module, by which they are known to the verifier.

Each is a symbol that says by its name which type is meant (include/linux/btf_ids.h); resolve_btfids writes the number
there when all is linked. One more type renumbers those behind it, so the numbers are taken out: the names are compared.
"""

from __future__ import annotations

import numpy as np

from kbuild_klp.elf.symbol_names import BTF_ID
from kbuild_klp.object.image import Image

_SECTION = ".BTF_ids"
_SET = (f"{BTF_ID}set__", f"{BTF_ID}set8__")
_SIZE = 4  # u32


def clear_btf_ids(image: Image) -> None:
    """Clear what stands at the symbols of BTF ids; not the sizes and flags of sets of them."""
    objects = image.objects
    sections = [at for at, name in enumerate(objects.section_names) if name == _SECTION and image.base[at] >= 0]
    if not sections:
        return
    symbols = np.isin(objects.shndx, sections).nonzero()[0]
    for symbol, name in zip(symbols.tolist(), objects.names_of(symbols.tolist()), strict=True):
        if name.startswith(BTF_ID) and not name.startswith(_SET):
            section = int(objects.shndx[symbol])
            place = int(image.base[section]) + int(objects.symbols["value"][symbol])
            image.data[place : min(place + _SIZE, int(image.end[section]))] = 0
