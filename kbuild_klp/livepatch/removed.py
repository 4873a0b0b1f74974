# SPDX-License-Identifier: GPL-2.0-only
"""Which removed functions the patched kernel goes on using.

A livepatch removes nothing: what the new build no longer has stays in memory, with everything that refers to it.
Whoever is replaced does not refer to it any more; whoever is unchanged, or cannot be replaced, does; and what was
removed does so as long as something refers to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from kbuild_klp.changes.classification import Change, ChangeType
from kbuild_klp.changes.verdict import Obstacle, Verdict
from kbuild_klp.checksum.entry import KIND_FUNCTION
from kbuild_klp.livepatch.seen import SeenObject
from kbuild_klp.object.symbol_id import SymbolId


class _Entry(NamedTuple):
    """An entry of an old object."""

    object: str
    symbol: SymbolId


def still_used(
    objects: Mapping[str, SeenObject], verdicts: Mapping[str, list[list[Verdict]]]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Return the removed functions (object, index of the change) that are still in use, and by whom.

    ``verdicts`` are those of all other changes: for each object, and each of its units, one a change.
    """
    users = _users_of_removed(objects)
    if not users:
        return {}
    replaced = {
        _Entry(name, change.old.symbol)
        for name, seen in objects.items()
        for at, change in enumerate(seen.changes)
        if change.old is not None
        and change.change is ChangeType.CHANGED
        and all(_is_replaced(change, row[at]) for row in verdicts[name])
    }
    gone = set(users)
    stays = {entry: own - replaced - gone for entry, own in users.items()}
    uses: dict[_Entry, list[_Entry]] = defaultdict(list)
    for entry, own in users.items():
        for user in own & gone:
            uses[user].append(entry)
    used = {entry for entry, own in stays.items() if own}
    waiting = list(used)
    while waiting:
        for entry in uses[waiting.pop()]:
            if entry not in used:
                used.add(entry)
                waiting.append(entry)
    result = {}
    for name, seen in objects.items():
        for at, symbol in seen.removed_functions():
            entry = _Entry(name, symbol)
            if entry in used:
                by = stays[entry] or (users[entry] & used) - {entry}
                result[name, at] = tuple(sorted(user.symbol.name for user in by))
    return result


def _is_replaced(change: Change, verdict: Verdict) -> bool:
    """Say whether a livepatch has a new version of what changed: of a function, or of a constant for all its readers.

    Who has the address of a constant keeps the old one, as that one's verdict says.
    """
    is_constant = any(it.obstacle is Obstacle.READ_ONLY for it in verdict.reasons)
    return verdict.possible and (change.kind == KIND_FUNCTION or is_constant)


def _users_of_removed(objects: Mapping[str, SeenObject]) -> dict[_Entry, set[_Entry]]:
    """Return everything that was removed, with the old entries that refer to it."""
    elsewhere: dict[str, list[tuple[str, SeenObject]]] = defaultdict(list)
    for name, seen in objects.items():
        for gone in seen.gone:
            elsewhere[gone].append((name, seen))
    users: dict[_Entry, set[_Entry]] = {}
    for name, seen in objects.items():
        if not any(seen.removed_functions()):
            continue
        for change in seen.changes:
            if change.change is ChangeType.REMOVED:
                own = (seen.users or {}).get(change.id, set())
                users[_Entry(name, change.id)] = {_Entry(name, user) for user in own}
        for at, symbol in seen.removed_functions():
            old, entry = seen.functions[at].old, seen.changes[at].old
            known = [symbol.name] if old is not None and not old.is_local else []
            known += [alias.name for alias in entry.aliases] if entry else []  # of what is static itself
            for called in known:
                for other_name, other in elsewhere.get(called, ()):
                    if not set(other.units).isdisjoint(seen.units):
                        users[_Entry(name, symbol)] |= {_Entry(other_name, user) for user in other.gone[called]}
    return users
