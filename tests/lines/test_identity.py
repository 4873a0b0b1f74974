# SPDX-License-Identifier: GPL-2.0-only
"""Who built a kernel, when, and under which name is no change of the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from fake_build import FakeBuild

from kbuild_klp.builds.built_tree import TreeBuild
from kbuild_klp.compare.passes import compare
from kbuild_klp.report import text


class Identity(NamedTuple):
    release: str = "6.12.1"
    user: str = "root"
    host: str = "here"
    compiler: str = "gcc 12.2"
    version: str = "# SMP "


OLD = Identity()
# As init/version.c and include/linux/vermagic.h have it, with a field of fixed length and references beside it.
SOURCE = """
struct names { char system[65], release[65], version[65]; void *owner; };
int release_is(const char *); void owner(void) {}
const char banner[] = "Linux version %(release)s (%(user)s@%(host)s) (%(compiler)s) %(version)s\\n";
const char format[] = "%%s version %%s (%(user)s@%(host)s) (%(compiler)s)\\n";
static const char vermagic[] __attribute__((used)) = "%(release)s SMP mod_unload %(more)s";
struct names names = { "Linux", "%(release)s", "%(version)s", owner };
int function(int x) { return release_is("before %(release)s after%(more)s") + %(number)s; }
"""


def _tree(
    root: Path, identity: Identity, more: str = "", number: int = 3, recorded: Identity | None = None
) -> TreeBuild:
    recorded = recorded or identity
    build = FakeBuild(root)
    build.write("include/config/kernel.release", f"{recorded.release}\n")
    compile_h = f'#define LINUX_COMPILE_BY\t"{recorded.user}"\n#define LINUX_COMPILE_HOST\t"{recorded.host}"\n'
    build.write("include/generated/compile.h", f'{compile_h}#define LINUX_COMPILER\t"{recorded.compiler}"\n')
    build.write("init/utsversion-tmp.h", f'#define UTS_VERSION "{recorded.version}"\n')
    values = {**identity._asdict(), "more": more, "number": number}
    build.compile("init/version.o", SOURCE % values)
    build.link("init/main.o", "init/version.o")
    return TreeBuild(str(root))


@pytest.mark.parametrize(
    ("new", "count"),
    [
        (OLD._replace(release="6.12.1-other"), 4),
        (OLD._replace(release="6.12.23"), 4),
        (OLD._replace(release="6.1.2"), 4),
        (OLD._replace(user="nobody", host="elsewhere"), 2),
        (OLD._replace(version="#2 SMP 1 Jan 2001"), 2),
        (Identity("7.0.0", "a", "b", "clang 19", "#3 SMP today"), 5),
    ],
)
def test_another_build_of_the_same_source_says_nothing(tmp_path: Path, new: Identity, count: int) -> None:
    report = compare(_tree(tmp_path / "old", OLD), _tree(tmp_path / "new", new), 1)
    assert not report.objects and not report.failed and not report.summary.differs
    assert report.summary.identity_only == count
    assert f"{count} more differ in what the builds say of themselves only" in text.render(report, text.TextStyle())


def test_what_else_differs_is_told(tmp_path: Path) -> None:
    new = OLD._replace(release="6.12.2")
    report = compare(_tree(tmp_path / "old", OLD), _tree(tmp_path / "new", new, more=" preempt"), 1)
    assert {change.symbol for change in report.objects[0].changes} == {"vermagic", "function"}
    assert report.summary.identity_only == 2


def test_another_constant_beside_the_release_is_told(tmp_path: Path) -> None:
    new = OLD._replace(release="6.12.2")
    report = compare(_tree(tmp_path / "old", OLD), _tree(tmp_path / "new", new, number=4), 1)
    assert {change.symbol for change in report.objects[0].changes} == {"function"}


def test_a_string_that_changed_by_hand_is_told(tmp_path: Path) -> None:
    """The trees have the same release, so it is not that."""
    new = OLD._replace(release="6.12.2")
    report = compare(_tree(tmp_path / "old", OLD), _tree(tmp_path / "new", new, recorded=OLD), 1)
    assert {change.symbol for change in report.objects[0].changes} == {"banner", "vermagic", "names", "function"}
    assert not report.summary.identity_only


def test_a_longer_number_is_not_the_release(tmp_path: Path) -> None:
    """6.12.1 became 6.12.2, and somebody made 6.12.10 into 6.12.20."""
    new = OLD._replace(release="6.12.2")
    trees = _tree(tmp_path / "old", OLD, more=" 6.12.10 "), _tree(tmp_path / "new", new, more=" 6.12.20 ")
    report = compare(*trees, 1)
    assert {change.symbol for change in report.objects[0].changes} == {"vermagic", "function"}
