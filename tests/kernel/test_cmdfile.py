# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbuild_klp.errors import BadTreeError
from kbuild_klp.kernel.cmdfile import SavedCommand, cmd_path, parse_saved_command, read_link_command, read_saved_command

COMPILED = """savedcmd_kernel/fork.o := gcc -DX='"a$(pound)b"' -c -o kernel/fork.o fork.c $$x

source_kernel/fork.o := /src/kernel/fork.c

deps_kernel/fork.o := \\
    $(wildcard include/config/SMP) \\
    $(wildcard include/config/CC_VERSION_TEXT) \\
  /src/include/linux/slab.h \\
  include/generated/bounds.h \\

kernel/fork.o: $(deps_kernel/fork.o)

$(deps_kernel/fork.o):

kernel/fork.o: $(wildcard ./tools/objtool/objtool)
"""


def test_compiled_object() -> None:
    assert parse_saved_command(COMPILED) == SavedCommand(
        target="kernel/fork.o",
        command="gcc -DX='\"a#b\"' -c -o kernel/fork.o fork.c $x",
        source="/src/kernel/fork.c",
        dependencies=("/src/include/linux/slab.h", "include/generated/bounds.h"),
    )


def test_format_before_saved_commands_were_renamed() -> None:
    old = COMPILED.replace("savedcmd_", "cmd_").replace("config/SMP", "config/64bit.h")
    parsed = parse_saved_command(old)
    assert parsed.target == "kernel/fork.o"
    assert len(parsed.dependencies) == 2


def test_archive_has_a_command_alone() -> None:
    parsed = parse_saved_command("savedcmd_fs/built-in.a := rm -f fs/built-in.a;  ar cDPrST fs/built-in.a\n")
    assert (parsed.source, parsed.dependencies) == (None, ())
    assert parsed.command.startswith("rm -f")


def test_names() -> None:
    assert cmd_path("fs/ext4/inode.o") == "fs/ext4/.inode.o.cmd"
    assert cmd_path("vmlinux.o") == ".vmlinux.o.cmd"


def test_missing_file_is_none(tmp_path: Path) -> None:
    assert read_saved_command(tmp_path / ".x.o.cmd") is None


def test_garbage_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / ".x.o.cmd"
    for text in (b"", b"\0\1\2", b"hello := world\n", bytes(range(256)), b"cmd_ :="):
        file.write_bytes(text)
        with pytest.raises(BadTreeError) as caught:
            read_saved_command(file)
        assert caught.value.file == str(file)


def test_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTreeError):
        read_saved_command(tmp_path)


paths = st.from_regex(r"/?([a-z0-9_.+-]+/){0,3}[a-z0-9_+-]+\.[ch]", fullmatch=True)


@given(
    name=st.sampled_from(["savedcmd", "cmd"]),
    command=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=1),
    source=paths,
    files=st.lists(paths),
    symbols=st.lists(st.from_regex(r"[A-Z0-9][A-Z0-9_]*", fullmatch=True)),
)
def test_what_kbuild_writes_is_read_back(
    name: str, command: str, source: str, files: list[str], symbols: list[str]
) -> None:
    escaped = command.replace("$", "$$").replace("#", "$(pound)")
    wildcards = "".join(f"    $(wildcard include/config/{symbol}) \\\n" for symbol in symbols)
    lines = "".join(f"  {file} \\\n" for file in files)
    text = f"{name}_a/b.o := {escaped}\n\nsource_a/b.o := {source}\n\ndeps_a/b.o := \\\n{wildcards}{lines}\n"
    parsed = parse_saved_command(text + "a/b.o: $(deps_a/b.o)\n\n$(deps_a/b.o):\n")
    assert parsed == SavedCommand("a/b.o", command, source, tuple(files))


@given(st.text() | st.text(st.sampled_from("savedcmd_deps:= \\\n$(wildcard)/.o")))
def test_any_text_parses_or_is_refused(text: str) -> None:
    with suppress(BadTreeError):
        parse_saved_command(text)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (
            "savedcmd_m/m.o := ld -r -o m/m.o @m/m.mod ; ./tools/objtool m/m.o\n",
            "ld -r -o m/m.o @m/m.mod ; ./tools/objtool m/m.o",
        ),
        ("savedcmd_a.o := gcc -c -o a.o a.c\n\nsource_a.o := a.c\n\ndeps_a.o := \\\n  a.h \\\n", None),
    ],
    ids=["linked", "compiled"],
)
def test_only_what_was_linked_is_asked_for_its_inputs(tmp_path: Path, text: str, command: str | None) -> None:
    """If this fails, lines in modules and in vmlinux.o are not proved from sources, or reading why takes seconds."""
    file = tmp_path / ".x.o.cmd"
    file.write_text(text)
    assert read_link_command(file) == command


def test_an_object_without_a_saved_command_was_not_linked(tmp_path: Path) -> None:
    assert read_link_command(tmp_path / ".x.o.cmd") is None


def test_a_saved_command_that_is_garbage_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".x.o.cmd"
    file.write_text("nothing\n")
    with pytest.raises(BadTreeError, match="holds no saved command"):
        read_link_command(file)
