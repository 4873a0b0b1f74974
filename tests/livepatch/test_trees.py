# SPDX-License-Identifier: GPL-2.0-only
"""What the two builds as a whole have to say, and what is said when they are not at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_build import klp

from kbuild_klp.builds.opening import open_build
from kbuild_klp.compare.passes import compare
from kbuild_klp.kernel.symvers import Export, Exports, changed_crcs, read_exports
from kbuild_klp.kernel.tree import BuildTree
from kbuild_klp.report.model import Report

if TYPE_CHECKING:
    from linked_kernel import Kernels, Verdicts

    Judge = Callable[[Report], Verdicts]

GOOD = "int foo(int x) { return x + %d; }\n"
OLD = {
    "fs/a.o": GOOD % 1,
    "fs/b.o": "int bar(int x); int user(int x) { return bar(x) + 1; } int limit = 5; int a;",
    "drivers/c.o": "int probe(int x) { return x; }",
}
NEW = {
    "fs/a.o": GOOD % 2 + "int added(int x) { return x; }",
    "fs/b.o": "int bar(int x); int user(int x) { return bar(x) + 2; } int limit = 6; long a;",
    "drivers/c.o": "int probe(int x) { return x + 1; } int more(int x) { return x; }",
}
DATA = "a livepatch replaces functions only"


# -- exports ----------------------------------------------------------------------------------------------------------


def exports(kernels: Kernels, old: str, new: str) -> None:
    """Write both Module.symvers: in each word a symbol and its CRC."""
    for build, text in ((kernels.old, old), (kernels.new, new)):
        words = [word.split("=") for word in text.split()]
        lines = [f"0x{crc}\t{symbol}\tvmlinux\tEXPORT_SYMBOL_GPL\t\n" for symbol, crc in words]
        build.write("Module.symvers", "".join(lines))


def test_an_export_with_another_crc(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    exports(kernels, "foo=11111111 bar=22222222", "foo=0000beef bar=22222222")
    report = kernels.compare()
    assert verdicts(report) == {"foo": ["CRC: foo 0x11111111 -> 0x0000beef"]}
    assert report.warnings == ["CRC of 1 exported symbol differs: foo"]


@pytest.mark.parametrize("is_newer", [True, False])
def test_an_export_of_an_object_that_was_built_after_the_list_of_exports(
    kernels: Kernels, verdicts: Judge, is_newer: bool
) -> None:
    """`make fs/` writes the CRC into the .cmd file of the object, and nothing else (gen_symversions)."""
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    exports(kernels, "foo=11111111", "foo=11111111")
    saved = kernels.new.write("fs/.a.o.cmd", "savedcmd_fs/a.o := gcc\n\n#SYMVER foo 0x0000beef\n")
    time = (kernels.new.root / "Module.symvers").stat().st_mtime_ns + (1 if is_newer else -1) * 10**9
    os.utime(saved, ns=(time, time))
    expected = ["CRC: foo 0x11111111 -> 0x0000beef"] if is_newer else []
    assert verdicts(kernels.compare()) == {"foo": expected}


def test_a_user_of_such_an_export(kernels: Kernels, verdicts: Judge) -> None:
    """The livepatch module would ask for the new CRC, and the running kernel not load it."""
    kernels.build(OLD, NEW)
    exports(kernels, "bar=22222222 far=1 limit=1", "bar=33333333 far=2 limit=1")
    report = kernels.compare()
    found = verdicts(report)
    assert found["user"] == ["CRC: bar 0x22222222 -> 0x33333333"]
    assert (found["foo"], found["probe"]) == ([], [])
    assert report.warnings == ["CRC of 2 exported symbols differs: bar, far"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("foo=11111111", "foo=11111111"),
        ("foo=00000000", "foo=11111111"),  # CONFIG_MODVERSIONS was switched on
        ("foo=11111111", "foo=00000000"),
        ("foo=11111111", "other=22222222"),
        ("", "foo=11111111"),
    ],
)
def test_exports_that_do_not_differ(kernels: Kernels, old: str, new: str) -> None:
    kernels.build({"fs/a.o": GOOD % 1}, {"fs/a.o": GOOD % 2})
    exports(kernels, old, new)
    assert kernels.verdicts() == {"foo": []}


def test_the_file_of_exports(tmp_path: Path) -> None:
    (tmp_path / "include/config").mkdir(parents=True)
    tree = BuildTree(tmp_path, tmp_path, tmp_path)
    assert read_exports(tree) is None
    lines = (
        "0x12345678 foo vmlinux EXPORT_SYMBOL",
        "nonsense",
        "0xzz bar vmlinux",
        "0x1 baz fs/ext4/ext4 X NS",
        "",
        "0x2 q",
    )
    text = "".join(line.replace(" ", "\t") + "\n" for line in lines)
    (tmp_path / "Module.symvers").write_text(text)
    exports = read_exports(tree)
    assert exports is not None
    assert exports.parse(exports.lines) == {"foo": Export("vmlinux", 0x12345678), "baz": Export("ext4", 1, "NS")}
    assert (exports.get("foo"), exports.get("bar")) == (Export("vmlinux", 0x12345678), None)


def test_a_crc_differs_where_both_export() -> None:
    same, old = "0x00000005\tsame\tvmlinux\tEXPORT_SYMBOL\t", "0x00000001\ta\tb\tEXPORT_SYMBOL\t"
    new = ["0x00000002\ta\tc\tEXPORT_SYMBOL\t", "0x00000002\td\tb\tEXPORT_SYMBOL\t"]
    assert changed_crcs(Exports([same, old], {}), Exports([same, *new], {})) == {"a": (1, 2)}
    assert changed_crcs(Exports([same, old], {}), Exports([same, old], {"same": 7})) == {"same": (5, 7)}


# -- what is not at hand ----------------------------------------------------------------------------------------------


def sides(kernels: Kernels, verdicts: Judge, old: str, new: str, **options: Any) -> Verdicts:
    return verdicts(compare(open_build(str(kernels.root / old)), open_build(str(kernels.root / new)), **options))


def unknown(what: str, why: str) -> str:
    return f"not known: whether it {what}: {why}"


KNOWN = {"limit": [f"data: content; {DATA}"], "a": [f"data: size 4 -> 8; {DATA}"]}


def test_the_old_build_is_an_archive(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(OLD, NEW)
    assert klp("export", "old", "-o", "old.klp", cwd=kernels.root).status == 0
    shutil.rmtree(kernels.root / "old")
    trace = unknown("can be traced", "the old object is not at hand")
    assert sides(kernels, verdicts, "old.klp", "new") == {
        **KNOWN, "foo": [trace], "user": [trace], "probe": [trace], "added": [], "more": []
    }  # fmt: skip


def test_the_new_build_is_an_archive(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(OLD, NEW)
    assert klp("export", "new", "-o", "new.klp", cwd=kernels.root).status == 0
    shutil.rmtree(kernels.root / "new")
    keys = unknown("uses a static key of a module", "the new object is not at hand")
    table = keys.replace("it uses a static key of a module", "a table names it that only boot reads")
    assert sides(kernels, verdicts, "old", "new.klp") == {
        **KNOWN, "foo": [], "user": [], "probe": [keys], "added": [table], "more": [keys, table]
    }  # fmt: skip


def test_what_was_removed_from_an_archive(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(NEW, OLD)
    assert klp("export", "old", "-o", "old.klp", cwd=kernels.root).status == 0
    found = sides(kernels, verdicts, "old.klp", "new")
    assert found["added"] == [unknown("is still referenced", "the old object is not at hand")]


def test_objects_that_were_not_read(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(OLD, NEW)
    found = sides(kernels, verdicts, "old", "new", explain=False)
    assert found["foo"][0] == unknown("can be traced", "the old object was not read")
    assert {name: found[name] for name in KNOWN} == KNOWN


def test_a_base_that_was_kept(kernels: Kernels) -> None:
    """The old objects are there, and what they were linked to, unless it was older than they."""
    kernels.build(OLD, NEW)
    root = kernels.root / "old"
    assert klp("base", "old", cwd=kernels.root).status == 0
    shutil.copytree(kernels.root / "new", root, dirs_exist_ok=True)
    document = klp("diff", "--kept", "old", "--json", cwd=kernels.root).json
    found = {change["symbol"]: change["livepatch"] for row in document["objects"] for change in row["changes"]}
    assert found["foo"] == {"possible": True, "reasons": []}
    assert found["limit"]["possible"] is False


def test_a_base_that_was_kept_before_it_was_linked(kernels: Kernels) -> None:
    kernels.build(OLD, NEW)
    for image in ("vmlinux", "drivers/mod.ko"):
        kernels.old.age(image)
    assert klp("base", "old", cwd=kernels.root).status == 0
    shutil.copytree(kernels.root / "new", kernels.root / "old", dirs_exist_ok=True)
    document = klp("diff", "--kept", "old", "--json", cwd=kernels.root).json
    found = {change["symbol"]: change["livepatch"] for row in document["objects"] for change in row["changes"]}
    unchecked = "not checked: whether its name is unique (no linked image of the old build)"
    assert found["foo"] == {"possible": True, "reasons": [unchecked]}


def test_two_objects_of_a_tree(kernels: Kernels, verdicts: Judge) -> None:
    """Where the tree is, it says what they are linked into."""
    source = "static __attribute__((noinline)) int same(int x) { return x * %d; } int %s(int x) { return same(x); }"
    old = {"drivers/a.o": source % (3, "a"), "drivers/b.o": source % (3, "b")}
    kernels.build(old, {"drivers/b.o": source % (5, "b")})
    found = sides(kernels, verdicts, "old/drivers/b.o", "new/drivers/b.o")
    assert found == {"same": ["(sympos 2 of 2 in mod)"]}


def test_two_objects_of_no_tree(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(OLD, NEW)
    for side in ("old", "new"):
        shutil.copy(kernels.root / side / "fs/a.o", kernels.root / f"{side}.o")
    unchecked = "(not checked: whether its name is unique (no linked image of the old build))"
    assert sides(kernels, verdicts, "old.o", "new.o") == {"foo": [unchecked], "added": []}


def test_a_kernel_without_livepatch(kernels: Kernels, verdicts: Judge) -> None:
    kernels.build(OLD, {**NEW, "fs/b.o": OLD["fs/b.o"].replace("int limit", "static int limit") + "int *p = &limit;"})
    for build in (kernels.old, kernels.new):
        build.write("include/config/auto.conf", "CONFIG_X86_64=y\nCONFIG_MODULES=y\n")
    no = ["no livepatch: the old kernel was built without CONFIG_LIVEPATCH"]
    found = verdicts(kernels.compare())
    assert found.pop("limit") == []  # nothing to replace
    assert found and all(reasons == no for reasons in found.values())


# -- a fault of ours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["look", "judged"])
def test_a_fault_costs_the_verdicts_only(
    kernels: Kernels, verdicts: Judge, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise IndexError("oh")

    kernels.build(OLD, NEW)
    monkeypatch.setattr(f"kbuild_klp.livepatch.survey.Survey.{where}", fail)
    monkeypatch.delenv("KLP_DEBUG", raising=False)
    report = kernels.compare()
    assert report.summary.changed == 5 and all("internal error: IndexError: oh" in line for line in report.warnings)
    assert not report.objects[0].changes[1].livepatch.possible
    assert verdicts(report)["foo"][0].startswith("not known: ")
