# SPDX-License-Identifier: GPL-2.0-only
"""A kernel tree in a few lines: the stages of the real top Makefiles, and nothing to compile.

Three generations, after what the top Makefiles of 5.10 to 6.6 (``old``), 6.12 (``new``) and 6.13 on
(``separate``, an external module may be built anywhere) do in the stage that Makefile.klp hooks into.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MAKEFILE_KLP = REPOSITORY / "Makefile.klp"
GENERATIONS = ("old", "new", "separate")

_HEAD = """\
VERSION = 6
NAME = Baby Opossum Posse
PHONY := __all
__all:
"""
_VERBOSITY = """\
ifeq ("$(origin V)", "command line")
KBUILD_VERBOSE := $(V)
endif
quiet := quiet_
Q := @
ifeq ($(KBUILD_VERBOSE),1)
quiet :=
Q :=
endif
ifneq ($(findstring s,$(firstword -$(MAKEFLAGS))),)
quiet := silent_
endif
export quiet Q KBUILD_VERBOSE
ifeq ("$(origin M)", "command line")
KBUILD_EXTMOD := $(M)
endif
export KBUILD_EXTMOD
ifeq ("$(origin O)", "command line")
KBUILD_OUTPUT := $(O)
endif
"""
_SUB_MAKE = """\
ifeq ($(need-sub-make),1)
PHONY += $(MAKECMDGOALS) __sub-make
$(filter-out $(this-makefile),$(MAKECMDGOALS)) __all: __sub-make
	@:
__sub-make:
	$(Q)$(MAKE) $(no-print-directory) -C $(DIRECTORY) -f $(abs_srctree)/Makefile $(MAKECMDGOALS)
"""
# What stands for the build: the goals are logged, `fail` fails, and a nested make reads this file again, as
# the package targets of the kernel do.
_BUILD = """\
__all: vmlinux
vmlinux:
	@echo '  LD      $@'
	@echo 'built $@ in $(CURDIR)' >> $(LOG)
	@mkdir -p include/config && echo 'CONFIG_KLP_CHECKSUMS=$(CONFIG)' > include/config/auto.conf
kernel/fork.o modules kernel/ kernelversion clean mrproper defconfig:
	@echo 'built $@ in $(CURDIR)' >> $(LOG)
bindeb-pkg:
	+@$(MAKE) -f $(abs_srctree)/Makefile vmlinux
fail:
	@false
PHONY += vmlinux modules kernel/ kernelversion clean mrproper defconfig bindeb-pkg fail
"""


def _top_makefile(generation: str) -> str:
    if generation == "old":
        return (
            _HEAD
            + "ifneq ($(sub_make_done),1)\n"
            + _VERBOSITY
            + """\
output := $(or $(KBUILD_OUTPUT),.)
abs_objtree := $(shell mkdir -p $(output) && cd $(output) && pwd)
ifneq ($(abs_objtree),$(CURDIR))
need-sub-make := 1
endif
this-makefile := $(lastword $(MAKEFILE_LIST))
abs_srctree := $(realpath $(dir $(this-makefile)))
export abs_srctree abs_objtree
export sub_make_done := 1

"""
            + _SUB_MAKE.replace("$(DIRECTORY)", "$(abs_objtree)").replace("$(no-print-directory) ", "")
            + "endif # need-sub-make\nendif # sub_make_done\nifeq ($(need-sub-make),)\n"
            + "here := $(realpath $(dir $(lastword $(MAKEFILE_LIST))))\n"
            + "$(if $(filter $(here),$(abs_srctree)),,$(error the list of makefiles was spoilt))\n"
            + _BUILD
            + "endif\n.PHONY: $(PHONY)\n"
        )
    directory = "abs_objtree" if generation == "new" else "abs_output"
    output = """\
ifneq ($(KBUILD_OUTPUT),)
$(shell mkdir -p "$(KBUILD_OUTPUT)")
abs_objtree := $(realpath $(KBUILD_OUTPUT))
endif
"""
    if generation == "separate":
        output = """\
ifdef KBUILD_EXTMOD
objtree := $(or $(realpath $(KBUILD_OUTPUT)),$(abs_srctree))
output := $(if $(filter $(CURDIR),$(objtree) $(abs_srctree)),$(KBUILD_EXTMOD))
else
objtree := .
output := $(KBUILD_OUTPUT)
endif
export objtree
ifneq ($(output),)
$(shell mkdir -p "$(output)")
abs_output := $(realpath $(output))
endif
"""
    return (
        _HEAD
        + f"""\
this-makefile := $(lastword $(MAKEFILE_LIST))
abs_srctree := $(realpath $(dir $(this-makefile)))
{directory} := $(CURDIR)
ifneq ($(sub_make_done),1)
"""
        + _VERBOSITY
        + output
        + f"""\
export sub_make_done := 1
endif # sub_make_done
ifeq ($({directory}),$(CURDIR))
no-print-directory := --no-print-directory
else
need-sub-make := 1
endif
ifeq ($(filter --no-print-directory,$(MAKEFLAGS)),)
need-sub-make := 1
endif

"""
        + _SUB_MAKE.replace("$(DIRECTORY)", f"$({directory})")
        + "else # need-sub-make\n"
        + _BUILD
        + "endif\n.PHONY: $(PHONY)\n"
    )


@dataclass(frozen=True)
class Result:
    """What a make printed and did: ``calls`` of kbuild-klp, and ``built`` goals, in one ``log``."""

    status: int
    output: str
    log: list[str]

    @property
    def calls(self) -> list[str]:
        return [line[5:] for line in self.log if line.startswith("klp: ")]

    @property
    def built(self) -> list[str]:
        return [line.split()[1] for line in self.log if line.startswith("built ")]


@dataclass(frozen=True)
class FakeKernel:
    """A fake kernel source tree at ``source`` and a kbuild-klp that writes down how it is called."""

    source: Path
    generation: str

    @property
    def command(self) -> Path:
        return self.source.parent / "klp"

    def make(self, *arguments: str, cwd: Path | None = None, **environment: str) -> Result:
        """Run make, with the fake command and without what the caller's make or shell may have set."""
        log = self.source.parent / "log"
        log.unlink(missing_ok=True)
        keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        done = subprocess.run(
            ["make", *arguments],
            cwd=cwd or self.source,
            env={**keep, "LC_ALL": "C", "LOG": str(log), "KBUILD_KLP": str(self.command), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, log.read_text().splitlines() if log.exists() else [])

    def plug_in(self, *arguments: str, cwd: Path | None = None, **environment: str) -> Result:
        """Run make in MAKEFILES mode."""
        return self.make(f"MAKEFILES={MAKEFILE_KLP}", *arguments, cwd=cwd, **environment)


def make_fake_kernel(directory: Path, generation: str) -> FakeKernel:
    """Create a fake kernel below ``directory``."""
    source = directory / "linux"
    (source / "scripts").mkdir(parents=True)
    (source / "lib").mkdir()
    (source / "scripts" / "Kbuild.include").write_text("# fake\n")
    (source / "Makefile").write_text(_top_makefile(generation))
    (source / "lib" / "Kconfig.debug").write_text(
        'menu "Compile-time checks and compiler options"\n\nconfig FOO\n\tbool "Foo"\n\nendmenu # "Compiler options"\n'
    )
    command = directory / "klp"
    command.write_text(
        '#!/bin/sh\necho "klp: $*" >>"$LOG"\n[ "$1" = diff ] && echo difference\n'
        '[ "$1" = --version ] && exit ${VERSION_STATUS:-0}\n'
        '[ -z "$SAY" ] || echo "$SAY" >&2\nexit ${STATUS:-0}\n'
    )
    command.chmod(0o755)
    return FakeKernel(source, generation)
