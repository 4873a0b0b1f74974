# SPDX-License-Identifier: GPL-2.0-only
"""The sides of a comparison, a file each: a tree, an object, an archive, what a tree kept of itself.

Read side (what all of them can be asked) first; opening says which one a path is. object_pair is one object of both.
"""
