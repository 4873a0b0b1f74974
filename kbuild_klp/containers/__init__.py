# SPDX-License-Identifier: GPL-2.0-only
"""What objects are kept in, and nothing about objects: archives (ar), and what compresses one file (compression)."""
