# SPDX-License-Identifier: GPL-2.0-only
"""What is exported, in every form that it had: a change is one of the entry, of its name or of its namespace."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from snippets import Changes, Compiler, changed, data_changed, diff_objects


@dataclass(frozen=True)
class Form:
    """How an export stands in an object: ``entry`` behind the ``strings`` that it refers to."""

    entry: str
    strings: str = ""
    has_namespace: bool = False
    name: str = "__ksymtab_f"


_TABLE = '.section "___ksymtab{gpl}+f", "a"\n'
# A variable of C, up to 5.3; then two labels in strings that are merged.
_VARIABLE = """
.section __ksymtab_strings, "a"
.type __kstrtab_f, @object
__kstrtab_f: .string "{string}"
.size __kstrtab_f, . - __kstrtab_f
"""
_LABELS = """
.section __ksymtab_strings, "aMS", %progbits, 1
__kstrtab_f: .asciz "{string}"
__kstrtabns_f: .asciz "{space}"
"""
_WIDE = ".type __ksymtab_f, @object\n__ksymtab_f: .quad {symbol}, __kstrtab_f\n.size __ksymtab_f, 16\n"
_MODPOST = (
    '.section .export_symbol, "a"\n__export_symbol_f: .asciz "{gpl}"\n.asciz "{space}"\n.balign 8\n.quad {symbol}\n'
)

# include/linux/export.h, and include/linux/export-internal.h from 6.5 on
FORMS = {
    "4.18": Form(_TABLE + _WIDE, _VARIABLE),
    "4.19-prel32": Form(_TABLE + ".balign 8\n__ksymtab_f: .long {symbol} - ., __kstrtab_f - .\n", _VARIABLE),
    "5.4": Form(_TABLE + ".balign 8\n__ksymtab_f: .quad {symbol}, __kstrtab_f, __kstrtabns_f\n", _LABELS, True),
    "5.4-prel32": Form(
        _TABLE + ".balign 4\n__ksymtab_f: .long {symbol} - ., __kstrtab_f - ., __kstrtabns_f - .\n", _LABELS, True
    ),
    "6.5-modpost": Form(_MODPOST, "", True, "__export_symbol_f"),
}
_CODE = """
.text
.globl f, g
.type f, @function\nf: {more}\nret\n.size f, . - f
.type g, @function\ng: nop\nret\n.size g, . - g
"""


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


def _object(gcc: Compiler, form: Form, **values: str) -> Path:
    text = {"symbol": "f", "string": "exported", "space": "", "gpl": "", "more": ""} | values
    return gcc.assembly((_CODE + form.strings + form.entry).format(**text))


def _answer(gcc: Compiler, form: Form, **values: str) -> Changes:
    """Return what is said of a change, which is the same in both directions."""
    old, new = _object(gcc, form), _object(gcc, form, **values)
    answer = diff_objects(old, new)
    assert diff_objects(new, old) == answer
    return answer


def test_a_function_that_grows_changes_no_export(gcc: Compiler, form: Form) -> None:
    assert _answer(gcc, form) == set()
    assert _answer(gcc, form, more="nop\nnop") == changed("f")


def test_export_of_another_function(gcc: Compiler, form: Form) -> None:
    assert _answer(gcc, form, symbol="g") == data_changed(form.name)


def test_export_to_others(gcc: Compiler, form: Form) -> None:
    """What is for modules under the GPL alone stands in another section, or says so."""
    change = "moved" if "{gpl}+" in form.entry else "changed"
    assert _answer(gcc, form, gpl="_gpl") == {(form.name, "data", change)}


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form.strings], indirect=True)
def test_export_by_another_name(gcc: Compiler, form: Form) -> None:
    """Where there are no strings, modpost makes the name from that of the entry."""
    assert _answer(gcc, form, string="exported2") == data_changed("__kstrtab_f")


@pytest.mark.parametrize("form", [name for name, form in FORMS.items() if form.has_namespace], indirect=True)
def test_export_into_a_namespace(gcc: Compiler, form: Form) -> None:
    """From 5.4 on."""
    assert _answer(gcc, form, space="SPACE") == data_changed("__kstrtabns_f" if form.strings else form.name)


# With MODULE_REL_CRCS, without, and since 5.18
@pytest.mark.parametrize(
    "entry", [".weak __crc_f\n.long __crc_f - .", ".weak __crc_f\n.long __crc_f", "__crc_f: .long {value}"]
)
def test_crc_of_an_export(gcc: Compiler, entry: str) -> None:
    paths: list[Path] = []
    for value in (1, 1, 2):
        path = gcc.assembly(f'.section "___kcrctab+f", "a"\n{entry.format(value=value)}\n')
        if ".weak" in entry:
            linked = path.with_name(f"linked{len(paths)}.o")
            subprocess.run(["ld", "-r", "--defsym", f"__crc_f={value}", path, "-o", linked], check=True)
            path = linked
        paths.append(path)
    assert diff_objects(*paths[:2]) == set()
    assert diff_objects(*paths[1:]) == data_changed("__crc_f")
