# SPDX-License-Identifier: GPL-2.0-only
"""Makefile.klp in the outermost make of every generation of top Makefiles, plugged in and installed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_kernel import MAKEFILE_KLP, FakeKernel, Result

from kbuild_klp.kbuild.install import apply_edits, plan_install

Run = Callable[..., Result]


def checksum_call(kernel: FakeKernel, *goals: str, objtree: Path | None = None) -> str:
    text = f"checksum --built {objtree or kernel.source}"
    return f"{text} --goals {' '.join(goals)}" if goals else text


def install(kernel: FakeKernel) -> None:
    apply_edits(plan_install(kernel.source, None))


@pytest.fixture(params=["plugged in", "installed"])
def run(request: pytest.FixtureRequest, kernel: FakeKernel) -> Run:
    """A function that runs make with our file in one of the two ways."""
    if request.param == "plugged in":
        return kernel.plug_in
    install(kernel)
    return kernel.make


# After a build


def test_default_goal_builds_and_then_writes_checksums(kernel: FakeKernel, run: Run) -> None:
    result = run("KLP_CHECKSUMS=1")
    assert result.status == 0
    assert result.log == [f"built vmlinux in {kernel.source}", f"klp: {checksum_call(kernel)}"]
    assert "  KLP     checksums\n" in result.output


def test_once_for_all_goals_and_under_j(kernel: FakeKernel, run: Run) -> None:
    result = run("-j4", "KLP_CHECKSUMS=1", "vmlinux", "modules", "kernel/fork.o")
    assert result.calls == [checksum_call(kernel, "vmlinux", "modules", "kernel/fork.o")]
    assert result.log[-1].startswith("klp: ")
    assert "jobserver" not in result.output


def test_nested_make_of_a_package_target_does_not_run_it_twice(kernel: FakeKernel, run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", "bindeb-pkg")
    assert result.built == ["vmlinux"]
    assert result.calls == [checksum_call(kernel, "bindeb-pkg")]


def test_failed_build_is_left_alone(kernel: FakeKernel, run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", "-k", "vmlinux", "fail")
    assert result.status == 2
    assert result.calls == []


@pytest.mark.parametrize("goal", ["defconfig", "clean", "mrproper", "kernelversion"])
def test_goals_that_build_nothing(run: Run, goal: str) -> None:
    assert run("KLP_CHECKSUMS=1", goal).log == run("KLP_CHECKSUMS=0", goal).log
    assert run("KLP_CHECKSUMS=1", goal).calls == []


def test_config_and_build_in_one_make(kernel: FakeKernel, run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", "defconfig", "vmlinux")
    assert result.calls == [checksum_call(kernel, "vmlinux")]


@pytest.mark.parametrize("value", ["0", "n", ""])
def test_off_is_off(kernel: FakeKernel, run: Run, value: str) -> None:
    result = run(f"KLP_CHECKSUMS={value}")
    assert result.calls == []
    assert result.output == kernel.make("KLP_CHECKSUMS=0").output


def test_value_from_the_environment(kernel: FakeKernel, run: Run) -> None:
    assert run(KLP_CHECKSUMS="1").calls == [checksum_call(kernel)]


def test_object_tree_relative_and_absolute(kernel: FakeKernel, run: Run) -> None:
    objtree = kernel.source.parent / "out"
    for value in ("../out", str(objtree)):
        assert run("KLP_CHECKSUMS=1", f"O={value}").calls == [checksum_call(kernel, objtree=objtree)]


def test_make_in_the_object_tree_through_its_own_makefile(kernel: FakeKernel, run: Run) -> None:
    objtree = kernel.source.parent / "out"
    objtree.mkdir()
    (objtree / "Makefile").write_text(f"include {kernel.source}/Makefile\n")
    assert run("KLP_CHECKSUMS=1", cwd=objtree).calls == [checksum_call(kernel, objtree=objtree)]


def test_tree_reached_through_a_symbolic_link(kernel: FakeKernel, run: Run) -> None:
    link = kernel.source.parent / "link"
    link.symlink_to(kernel.source)
    result = run("-C", str(link), "KLP_CHECKSUMS=1", "vmlinux", cwd=kernel.source.parent)
    assert [Path(call.split()[2]).resolve() for call in result.calls] == [kernel.source]


def test_dry_run_shows_the_command_and_runs_nothing(kernel: FakeKernel, run: Run) -> None:
    result = run("-n", "KLP_CHECKSUMS=1", "vmlinux")
    assert result.log == []
    assert f"{kernel.command} checksum --built {kernel.source} --goals 'vmlinux'\n" in result.output


@pytest.mark.parametrize("flag", ["-q", "-t"])
def test_question_and_touch_run_nothing(run: Run, flag: str) -> None:
    assert run(flag, "KLP_CHECKSUMS=1", "vmlinux").calls == []


def test_silent(kernel: FakeKernel, run: Run) -> None:
    result = run("-s", "KLP_CHECKSUMS=1", "modules")
    assert (result.output, result.calls) == ("", [checksum_call(kernel, "modules")])


def test_verbose_shows_the_command(kernel: FakeKernel, run: Run) -> None:
    output = run("V=1", "KLP_CHECKSUMS=1", "modules").output
    assert f"  {kernel.command} checksum --built {kernel.source} --goals 'modules'\n" in output


# Trouble


def warnings(result: Result) -> list[str]:
    return [line for line in result.output.splitlines() if "kbuild-klp:" in line or "not found" in line]


def test_missing_tool_is_one_warning(run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", KBUILD_KLP="/nonexistent/kbuild-klp")
    assert result.status == 0
    assert len(warnings(result)) == 1
    assert "warning: no checksums were written: " in warnings(result)[0]


def test_missing_tool_fails_a_strict_build(run: Run) -> None:
    result = run("KLP_CHECKSUMS=strict", KBUILD_KLP="/nonexistent/kbuild-klp")
    assert result.status == 2
    assert "error: no checksums were written: " in warnings(result)[0]


def test_traceback_becomes_its_last_line(run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", STATUS="1", SAY="Traceback\nModuleNotFoundError: No module named 'numpy'")
    assert result.status == 0
    assert warnings(result) == [
        "kbuild-klp: warning: no checksums were written: ModuleNotFoundError: No module named 'numpy'"
    ]
    assert "Traceback" not in result.output


def test_what_the_tool_says_is_passed_on(run: Run) -> None:
    result = run("KLP_CHECKSUMS=1", STATUS="2", SAY="kbuild-klp: warning: a.o: truncated")
    assert result.status == 0
    assert warnings(result) == ["kbuild-klp: warning: a.o: truncated"]
    assert run("KLP_CHECKSUMS=strict", STATUS="2").status == 2


# Goals of ours


def test_klp_goals_build_nothing(kernel: FakeKernel, run: Run) -> None:
    result = run("klp-diff", "BASE=../orig")
    assert result.log == [f"klp: diff ../orig {kernel.source}"]
    assert result.output == "difference\n"


def test_klp_goals_with_the_switch_on_or_off(kernel: FakeKernel, run: Run) -> None:
    for value in ("0", "1", "strict"):
        assert run("klp-diff", f"KLP_CHECKSUMS={value}").log == [f"klp: diff --kept {kernel.source}"]


def test_mixed_goals_run_after_the_build_in_order(kernel: FakeKernel, run: Run) -> None:
    result = run("-j8", "klp-checksums", "vmlinux", "klp-diff", "modules", "klp-base", "KLP_CHECKSUMS=1")
    assert sorted(result.built) == ["modules", "vmlinux"]
    assert result.log[2:] == [
        f"klp: {checksum_call(kernel, 'vmlinux', 'modules')}",
        f"klp: checksum {kernel.source}",
        f"klp: diff --kept {kernel.source}",
        f"klp: base {kernel.source}",
    ]


def test_mixed_goals_without_checksums_in_the_build(kernel: FakeKernel, run: Run) -> None:
    result = run("-j8", "klp-diff", "BASE=/orig", "vmlinux")
    assert result.log == [f"built vmlinux in {kernel.source}", f"klp: diff /orig {kernel.source}"]


def test_klp_goals_do_not_run_after_a_failed_build(run: Run) -> None:
    result = run("-k", "fail", "klp-diff")
    assert (result.status, result.calls) == (2, [])


def test_other_goals(kernel: FakeKernel, run: Run) -> None:
    tree = kernel.source
    assert run("klp-export").calls == [f"export {tree} -o {tree}/klp-checksums.klp"]
    assert run("klp-export", "KLP_ARCHIVE=a.klp").calls == [f"export {tree} -o a.klp"]
    assert run("klp-base-clean").calls == [f"base --clean {tree}"]
    assert run("klp-explain", "BASE=x", "SYM=vfs_read").calls == [f"explain x {tree} vfs_read"]
    assert run("klp-explain", "BASE=x", "SYM=vfs_read vfs_write").calls == [f"explain x {tree} vfs_read vfs_write"]
    assert run("klp-explain", "SYM=vfs_read", "KLP_FLAGS=--json -U 5").calls == [
        f"explain --json -U 5 --kept {tree} vfs_read"
    ]
    assert run("klp-explain", "BASE=x").calls == [f"explain x {tree}"]
    assert run("klp-diff", "BASE=x", "KLP_FLAGS=--json").calls == [f"diff --json x {tree}"]
    # The kernel's own Makefile sets NAME, to what Linus called it.
    assert run("klp-patch", "BASE=x").calls == [f"patch x {tree}"]
    assert run("klp-patch", "NAME=fix-foo", "KLP_FLAGS=--json").calls == [f"patch --name fix-foo --json --kept {tree}"]
    assert run("klp-patch", "NAME=it's").calls == [f"patch --name it's --kept {tree}"]
    assert run("klp-patch", "NAME=").calls == [f"patch --name  --kept {tree}"]
    result = run("klp-help")
    assert result.status == 0
    assert "  klp-diff [BASE=X] " in result.output


def test_unknown_goal_is_make_s_business(run: Run) -> None:
    result = run("klp-nonsense")
    assert result.status == 2
    assert "klp-nonsense" in result.output


@pytest.mark.parametrize(("status", "expected"), [("0", 0), ("1", 0), ("2", 2), ("139", 2)])
def test_changes_are_no_failure_of_make(run: Run, status: str, expected: int) -> None:
    assert run("klp-diff", "BASE=x", STATUS=status).status == expected


def test_status_1_of_a_tool_that_does_not_run_is_a_failure(run: Run) -> None:
    assert run("klp-diff", "BASE=x", STATUS="1", VERSION_STATUS="1").status == 2


def test_klp_goal_dry_run(kernel: FakeKernel, run: Run) -> None:
    result = run("-n", "klp-diff", "BASE=x")
    assert result.log == []
    assert f"{kernel.command} diff" in result.output


def test_clean_removes_the_default_archive(kernel: FakeKernel, run: Run) -> None:
    archive = kernel.source / "klp-checksums.klp"
    for goals in (["clean"], ["mrproper"], ["-j2", "clean", "vmlinux"]):
        archive.touch()
        assert run(*goals).status == 0
        assert not archive.exists()


# External modules


@pytest.fixture
def module(kernel: FakeKernel) -> Path:
    """An external module with the usual makefile, which is the outermost one."""
    directory = kernel.source.parent / "module"
    directory.mkdir()
    (directory / "Makefile").write_text(
        "ifeq ($(KERNELRELEASE),)\nfirst:\n\t$(MAKE) -C $(KDIR) M=$(CURDIR) modules\nlist:\n"
        "\t@echo '[$(MAKEFILE_LIST)]'\nendif\n"
    )
    return directory


def test_external_module(kernel: FakeKernel, run: Run, module: Path) -> None:
    result = run("-C", str(kernel.source), f"M={module}", "modules", "KLP_CHECKSUMS=1")
    assert result.calls == [f"checksum --built {kernel.source} --extmod {module} --goals modules"]
    assert run(f"M={module}", "klp-diff", "BASE=x").calls == [f"diff x {module}"]


def test_external_module_s_own_makefile(kernel: FakeKernel, run: Run, module: Path) -> None:
    result = run(f"KDIR={kernel.source}", "KLP_CHECKSUMS=1", cwd=module)
    assert result.status == 0
    assert result.calls == [f"checksum --built {kernel.source} --extmod {module} --goals modules"]


@pytest.mark.parametrize("kernel", ["separate"], indirect=True)
def test_external_module_built_in_its_own_directory(kernel: FakeKernel, run: Run, module: Path) -> None:
    """From 6.13 on."""
    result = run("-f", f"{kernel.source}/Makefile", f"M={module}", "modules", "KLP_CHECKSUMS=1", cwd=module)
    assert result.built == ["modules"]
    assert result.calls == [f"checksum --built {kernel.source} --extmod {module} --goals modules"]


def test_relative_module_directory(kernel: FakeKernel, run: Run) -> None:
    (kernel.source / "drivers").mkdir()
    result = run("M=drivers", "modules", "KLP_CHECKSUMS=1")
    assert result.calls == [f"checksum --built {kernel.source} --extmod {kernel.source}/drivers --goals modules"]


# Being harmless elsewhere


def test_makefile_that_is_no_kernel_s(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(
        "first:\n\t@echo '$@ $(.DEFAULT_GOAL) [$(MAKEFILE_LIST)] $(MAKECMDGOALS)'\n"
        "\t@env | grep -c ^klp || :\n.PHONY: first\n"
    )
    plain = subprocess.run(["make"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for arguments in (["KLP_CHECKSUMS=1"], []):
        ours = subprocess.run(
            ["make", f"MAKEFILES={MAKEFILE_KLP}", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert re.sub(r" +", " ", ours.stdout) == re.sub(r" +", " ", plain.stdout)
        assert ours.stderr == ""


def test_both_ways_at_once(kernel: FakeKernel) -> None:
    install(kernel)
    result = kernel.plug_in("KLP_CHECKSUMS=1", "vmlinux", "klp-diff")
    assert result.calls == [checksum_call(kernel, "vmlinux"), f"diff --kept {kernel.source}"]
    assert "warning" not in result.output


def test_installed_file_that_has_gone_does_not_stop_a_build(kernel: FakeKernel) -> None:
    install(kernel)
    (kernel.source / "scripts" / "Makefile.klp").unlink()
    result = kernel.make("KLP_CHECKSUMS=1")
    assert (result.status, result.calls) == (0, [])


# The configuration


def test_configuration_decides_when_the_variable_does_not(kernel: FakeKernel) -> None:
    install(kernel)
    (kernel.source / ".config").write_text("CONFIG_KLP_CHECKSUMS=y\n")
    assert kernel.make("CONFIG=y").calls == [checksum_call(kernel)]
    assert kernel.make("CONFIG=y", "KLP_CHECKSUMS=0").calls == []
    (kernel.source / ".config").write_text("# CONFIG_KLP_CHECKSUMS is not set\n")
    kernel.make("CONFIG=n")
    assert kernel.make("CONFIG=n").calls == []


def test_configuration_made_in_the_same_make(kernel: FakeKernel) -> None:
    install(kernel)
    assert kernel.make("defconfig", "vmlinux", "CONFIG=n").calls == []
    assert kernel.make("defconfig", "vmlinux", "CONFIG=y").calls == [checksum_call(kernel, "vmlinux")]


# The command


def test_command_from_path_for_a_tree_that_carries_the_patch(kernel: FakeKernel, tmp_path: Path) -> None:
    install(kernel)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kbuild-klp").symlink_to(kernel.command)
    result = kernel.make("klp-checksums", KBUILD_KLP="", PATH=f"{programs}:/usr/bin:/bin")
    assert result.calls == [f"checksum {kernel.source}"]
