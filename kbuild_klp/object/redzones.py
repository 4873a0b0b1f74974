# SPDX-License-Identifier: GPL-2.0-only
"""The zeros that KASAN puts behind a variable: they follow from it, and pad as alignment does.

How many they are stands in the variable's descriptor (struct kasan_global in mm/kasan/kasan.h: beg, size and
size_with_redzone first), which is compared with the constructor that registers it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kbuild_klp.elf import constants as elf
from kbuild_klp.object.chunks import Chunks, Gaps
from kbuild_klp.object.image import Image
from kbuild_klp.object.references import References
from kbuild_klp.object.runs import Numbers

_REGISTER = b"__asan_register_globals"
_WORD = 8
_GRANULE = 32  # bytes to which a variable and its redzone are rounded (asan_var_and_redzone_size in GCC's asan.h)


def without_redzones(
    image: Image, chunks: Chunks, gaps: Gaps, filler: NDArray[np.bool_], references: References, targets: Numbers
) -> tuple[Gaps, NDArray[np.bool_]]:
    """Return the gaps cut where redzones end, and which of them are filler, as ``filler`` is of ``gaps``.

    ``targets`` are the sorted linear addresses to which something refers that names no symbol.
    """
    if not image.objects.named([_REGISTER]):
        return gaps, filler
    whole = _whole_sizes(image, chunks, references)
    behind = np.searchsorted(chunks.end, gaps.start)  # the chunk that ends where the gap begins
    at = np.minimum(behind, max(len(chunks.start) - 1, 0))
    end = chunks.start[at] + whole[at]
    is_zone = ~filler & (chunks.end[at] == gaps.start) & (chunks.section[at] == gaps.section) & (whole[at] > 0)
    is_zone &= (gaps.start < end) & (end <= gaps.end)
    rows = is_zone.nonzero()[0]
    rows = rows[[_is_empty(image, targets, low, high) for low, high in _bounds(gaps.start[rows], end[rows])]]
    if not len(rows):
        return gaps, filler
    left = rows[end[rows] < gaps.end[rows]]
    align = image.objects.sections["align"][gaps.section[left]].astype(np.int64)
    is_short = gaps.end[left] - end[left] < np.maximum(align, 1)
    pads = [_is_empty(image, targets, low - 1, high) for low, high in _bounds(end[left], gaps.end[left])]
    own_end = gaps.end.copy()
    own_end[rows] = end[rows]
    is_filler = filler.copy()
    is_filler[rows] = True
    start = np.concatenate([gaps.start, end[left].astype(gaps.start.dtype)])
    order = np.argsort(start, kind="stable")
    cut = Gaps(
        start[order],
        np.concatenate([own_end, gaps.end[left]])[order],
        np.concatenate([gaps.section, gaps.section[left]])[order],
    )
    return cut, np.concatenate([is_filler, is_short & np.array(pads, bool)])[order]


def _bounds(low: Numbers, high: Numbers) -> list[tuple[int, int]]:
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _whole_sizes(image: Image, chunks: Chunks, references: References) -> NDArray[np.int64]:
    """Return the size that a descriptor gives each variable with its redzone, 0 where there is none."""
    result = np.zeros(len(chunks.start), np.int64)
    place = references.place
    is_data = (place >= image.code_end) & (place + 3 * _WORD <= len(image.data)) & (references.target >= 0)
    rows = is_data.nonzero()[0]
    if not len(rows) or not len(chunks.start):
        return result
    chunk = np.minimum(np.searchsorted(chunks.start, references.target[rows]), len(chunks.start) - 1)
    starts = chunks.start[chunk] == references.target[rows]
    rows, chunk = rows[starts], chunk[starts]
    words = image.data[place[rows][:, None] + np.arange(_WORD, 3 * _WORD)].copy()
    order = "<" if image.architecture.byteorder == "little" else ">"
    size, whole = words.view(f"{order}i8").T.astype(np.int64)
    fits = (size == chunks.end[chunk] - chunks.start[chunk]) & (whole > size) & (whole % _GRANULE == 0)
    result[chunk[fits]] = whole[fits]
    return result


def _is_empty(image: Image, targets: Numbers, low: int, high: int) -> bool:
    """Say whether there are zeros only between two places, of which nothing but the first is referred to."""
    has_target = np.searchsorted(targets, low, "right") != np.searchsorted(targets, high)
    has_relocation = np.searchsorted(image.places, low) != np.searchsorted(image.places, high)
    section = int(image.order[np.searchsorted(image.starts, low, "right") - 1])
    no_content = image.objects.sections["type"][section] == elf.SHT_NOBITS
    return not has_target and not has_relocation and bool(no_content or not any(image.buffer[low:high]))
