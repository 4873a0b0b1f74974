# SPDX-License-Identifier: GPL-2.0-only
"""Everything that is different on different machines."""
