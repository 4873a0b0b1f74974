# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel does for its own code while it boots, and for the code of a module too early or not at all."""

from __future__ import annotations

from extracted_mutations import functions
from snippets import Compiler

from kbuild_klp.extract.correlated import Correlated
from kbuild_klp.extract.needed import Needed
from kbuild_klp.extract.relocated import RelocatedObject
from kbuild_klp.object.view import ObjectView

_DEBUG = """
struct debug { const char *module, *function; };
extern void say(struct debug *, const char *);
extern int one(int), two(int);
int user(int x)
{
	static struct debug descriptor __attribute__((section("__dyndbg"), used)) = { "m", __func__ };
	say(&descriptor, __func__);
	return x + 1;
}
int (*const table[8])(int) = { one, two, one, two };
"""


def test_a_debug_descriptor_names_its_function_before_its_module_is_there(gcc: Compiler) -> None:
    """Beside an array, the string could be read as that with a negative index, which the old object has."""
    view = ObjectView(str(gcc.object(_DEBUG)))
    mains = [part for part in functions(view) if view.part_name(part) == "user"]
    needed = Needed(Correlated(view, view), RelocatedObject(view), [(part, "changed") for part in mains])
    section = view.canonical.section_name
    [piece] = [piece for piece in needed.pieces.values() if section(piece.part) == "__dyndbg"]
    goals = [needed.goals[it.row] for it in needed.references_of(piece)]
    assert len(goals) == 2 and all(goal.piece in needed.pieces for goal in goals), goals
