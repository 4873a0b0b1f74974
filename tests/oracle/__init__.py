# SPDX-License-Identifier: GPL-2.0-only
"""A second opinion on two objects, from what binutils prints; shares no code with kbuild_klp, and must not.

Where kbuild_klp hashes bytes of ELF tables with numpy, this compares text: one listing for each function, in which
every address is replaced by what lies there. It is slow, and made to go wrong in other ways.
"""
