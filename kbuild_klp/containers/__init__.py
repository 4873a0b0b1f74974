# SPDX-License-Identifier: GPL-2.0-only
"""Files as such, and nothing about objects: archives (ar), what compresses one (compression), how one is replaced."""
