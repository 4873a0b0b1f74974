# SPDX-License-Identifier: GPL-2.0-only
"""Special sections: the table of them (special.toml), and which row of it fits a section at hand."""
