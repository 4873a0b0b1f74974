# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers in records that lie among other data, and are known by a section of pointers to them (.printk_index)."""

from __future__ import annotations

import numpy as np

from kbuild_klp.object.image import Image
from kbuild_klp.object.owned import take_lines
from kbuild_klp.object.parts import OWNED, STRINGS, Parts
from kbuild_klp.object.references import References


def take_pointed_lines(image: Image, parts: Parts, references: References) -> dict[int, bytes]:
    """Clear the line numbers in records to which sections of pointers point; return what was in them, by part."""
    taken: dict[int, bytes] = {}
    for group in image.records:
        fields = group.row.pointed_lines
        length = max((field.offset + -(-field.bits // 8) for field in fields), default=0)
        for section in group.sections.tolist() if fields else ():
            low, high = np.searchsorted(references.place, [image.base[section], image.end[section]])
            for target in references.target[low:high].tolist():
                part = int(parts.at(np.array([target]))[0]) if target >= 0 else -1
                if part < 0 or part in taken or parts.start[part] != target or parts.kind[part] in (OWNED, STRINGS):
                    continue
                # A number is where nothing else is filled in.
                places = [(target + field.offset, target + field.offset + -(-field.bits // 8)) for field in fields]
                is_filled = any(np.diff(np.searchsorted(image.places, place))[0] for place in places)
                if not is_filled and target + length <= min(int(parts.end[part]), len(image.data)):
                    record = image.data[target : target + length].reshape(1, length)
                    taken[part] = take_lines(record, fields, image.architecture.byteorder).tobytes()
    return taken
