# SPDX-License-Identifier: GPL-2.0-only
"""The result of a comparison as data, and its presenters."""
