# SPDX-License-Identifier: GPL-2.0-only
"""Changes to sources of the kernel: seeded ones by pattern, each in one line, so that no line number moves.

A rule is a pattern over one line and what takes its place. Sites are the lines of code at which a rule fits, outside
of comments, directives and macros; which one is taken follows from the seed, the file and the kind alone.
"""

from __future__ import annotations

import enum
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CASES = Path(__file__).resolve().parents[1] / "selftests/cases"
TABLE = Path(__file__).with_name("source_mutations.toml")


class Kind(enum.Enum):
    """What sort of change it is."""

    OPERATOR = "operator"
    CONSTANT = "constant"
    CONDITION = "condition"
    ARGUMENT = "argument"
    CALLEE = "callee"
    STATEMENT = "statement"
    STRING = "string"
    INITIALISER = "initialiser"
    TABLE = "table"
    ATTRIBUTE = "attribute"
    STATIC_KEY = "static key"
    WARN = "warn"
    ALTERNATIVE = "alternative"
    EXTABLE = "extable"
    REGISTER = "register"
    BRANCH = "branch"
    RECORD = "record"
    PATCH = "patch"
    NOTHING = "nothing"


class Mutation(NamedTuple):
    """One change, in ``file``: line ``line`` (from 1) was ``old`` and is ``new``; ``texts`` are whole files by path."""

    object: str
    kind: Kind
    file: str
    line: int
    old: str
    new: str
    texts: dict[str, str]

    def __str__(self) -> str:
        return f"{self.object}: {self.file}:{self.line} ({self.kind.value}): {self.old.strip()}  ->  {self.new.strip()}"


Replacement = str | Callable[[re.Match[str]], str]


class Rule(NamedTuple):
    """Where ``pattern`` fits a line of code, ``new`` takes the place of what it matched."""

    kind: Kind
    pattern: re.Pattern[str]
    new: Replacement


def _next_number(match: re.Match[str]) -> str:
    value = int(match[0], 0) if not re.fullmatch(r"0\d+", match[0]) else int(match[0], 8)
    return hex(value + 1) if match[0].startswith("0x") else str(value + 1)


_ERRORS = ("EINVAL", "ENOMEM", "EBUSY", "EAGAIN", "EPERM", "EIO", "ENOENT", "EFAULT", "EINVAL")
_CALLEES = {
    "kzalloc": "kmalloc",
    "kmalloc": "kzalloc",
    "list_add": "list_add_tail",
    "list_add_tail": "list_add",
    "list_del": "list_del_init",
    "list_del_init": "list_del",
    "spin_lock": "raw_spin_lock",
    "spin_lock_irq": "spin_lock",
    "spin_unlock_irq": "spin_unlock",
    "mutex_lock": "mutex_trylock",
    "kfree": "kvfree",
    "kvfree": "kfree",
    "min": "max",
    "max": "min",
    "strcmp": "strcasecmp",
    "atomic_inc": "atomic_dec",
    "atomic_dec": "atomic_inc",
    "atomic_read": "atomic_inc_return",
    "put_device": "get_device",
    "rcu_read_lock": "rcu_read_unlock",
    "synchronize_rcu": "rcu_barrier",
    "wake_up": "wake_up_all",
    "copy_to_user": "copy_from_user",
    "set_bit": "clear_bit",
    "clear_bit": "set_bit",
    "test_bit": "test_and_set_bit",
    "memcpy": "memmove",
    "cpu_to_le32": "cpu_to_be32",
    "le32_to_cpu": "be32_to_cpu",
    "cpu_to_be32": "cpu_to_le32",
    "be32_to_cpu": "le32_to_cpu",
    "htons": "htonl",
    "likely": "unlikely",
    "unlikely": "likely",
}
_OPERATORS = {
    " < ": " <= ",
    " > ": " >= ",
    " <= ": " < ",
    " >= ": " > ",
    " == ": " != ",
    " != ": " == ",
    " && ": " || ",
    " || ": " && ",
    " + ": " - ",
    " - ": " + ",
    " & ": " | ",
    " | ": " & ",
    " |= ": " &= ",
    " += ": " -= ",
    " << ": " >> ",
    "++;": "--;",
}
_REGISTERS = {"rax": "r11", "rcx": "r10", "rdx": "r9", "rsi": "r8", "rdi": "rsi", "eax": "edx", "ecx": "eax"}
_BRANCHES = {"je": "jne", "jne": "je", "jz": "jnz", "jnz": "jz", "jb": "jae", "jae": "jb", "jl": "jge", "jge": "jl"}
_BRANCHES |= {"ja": "jbe", "jbe": "ja", "jmp": "jz", "jc": "jnc", "jnc": "jc"}
_FEATURES = {"X86_FEATURE_ERMS": "X86_FEATURE_FSRM", "X86_FEATURE_FSRM": "X86_FEATURE_ERMS"}
_EXTABLE = {"_ASM_EXTABLE_UA": "_ASM_EXTABLE_FAULT", "_ASM_EXTABLE": "_ASM_EXTABLE_UA"}
_EXTABLE |= {"_ASM_EXTABLE_TYPE": "_ASM_EXTABLE_UA", "_ASM_EXTABLE_CPY": "_ASM_EXTABLE_UA"}


def _words(words: dict[str, str], before: str = r"\b", after: str = r"\b") -> tuple[re.Pattern[str], Replacement]:
    choice = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(f"{before}(?:{choice}){after}"), lambda match: words[match[0]]


def _other_letter(match: re.Match[str]) -> str:
    return match[1] + chr(ord("a") + (ord(match[2]) - ord("a") + 1) % 26)


_SWAP = re.compile(r"(?<=\b)([a-z_]\w+\()([a-z_][\w>.-]*), ([a-z_][\w>.-]*)(?=\))")
_C_RULES = (
    Rule(Kind.OPERATOR, *_words(_OPERATORS, "", "")),
    Rule(Kind.CONSTANT, re.compile(r"(?<![\w.])(?:0x[0-9a-f]+|\d+)\b(?![\w.:])"), _next_number),
    Rule(
        Kind.CONSTANT,
        re.compile(r"(?<=-)(?:" + "|".join(sorted({*_ERRORS})) + r")\b"),
        lambda match: _ERRORS[_ERRORS.index(match[0]) + 1],
    ),
    Rule(Kind.CONSTANT, *_words({"true": "false", "false": "true", "GFP_KERNEL": "GFP_NOFS", "NULL": "(void *)8"})),
    Rule(Kind.CONDITION, re.compile(r"\b(if|while) \((.*)\)(?=(?: \{)?$)"), r"\1 (!(\2))"),
    Rule(Kind.ARGUMENT, _SWAP, r"\1\3, \2"),
    Rule(Kind.ARGUMENT, re.compile(r"(?<=, )(?:NULL|0|1|true|false)(?=\))"), "3"),
    Rule(Kind.CALLEE, *_words(_CALLEES, r"(?<![\w>.])", r"(?=\()")),
    Rule(Kind.STATEMENT, re.compile(r"(?<=\t)[a-z_]\w+\([^()]*(?:\([^()]*\)[^()]*)*\);$"), ";"),
    Rule(Kind.STRING, re.compile(r'("[^"\\%]*?)([a-z])(?=[^"]*")'), _other_letter),
    Rule(Kind.STATIC_KEY, *_words({"static_branch_likely": "static_branch_unlikely"})),
    Rule(Kind.STATIC_KEY, *_words({"static_branch_unlikely": "static_branch_likely"})),
    Rule(
        Kind.WARN, *_words({"WARN_ON": "WARN_ON_ONCE", "WARN_ON_ONCE": "WARN_ON", "BUG_ON": "WARN_ON"}, after=r"(?=\()")
    ),
    Rule(Kind.WARN, *_words({"WARN_ONCE": "WARN", "pr_warn": "pr_err", "pr_err": "pr_warn", "pr_info": "pr_debug"})),
    Rule(Kind.WARN, *_words({"pr_debug": "pr_info", "dev_dbg": "dev_info", "dev_warn": "dev_err"})),
)
_TABLE_RULES = (
    Rule(Kind.INITIALISER, re.compile(r"(?<==)(\s*)[a-z]\w+(?=,$)"), r"\1NULL"),
    Rule(Kind.INITIALISER, re.compile(r"(?<== )(?:0x[0-9a-f]+|\d+)(?=,$)"), _next_number),
    Rule(Kind.INITIALISER, re.compile(r'(= "[^"\\%]*?)([a-z])(?=[^"]*",$)'), _other_letter),
    Rule(Kind.TABLE, re.compile(r"(?<![\w.\"%])(?:0x[0-9a-f]+|\d+)\b(?=[^\"]*\},?$)"), _next_number),
    Rule(Kind.TABLE, re.compile(r'("[^"\\%]*?)([a-z])(?=[^"]*")'), _other_letter),
    Rule(Kind.TABLE, re.compile(r"(?<=^\t)(?:0x[0-9a-f]+|\d+)(?=,)"), _next_number),
)
_STATIC = re.compile(r"^static (?!inline\b|__always_inline\b|noinline\b|__init\b|const\b)(?=[^=;]*\()")
_TOP_RULES = (
    Rule(Kind.ATTRIBUTE, _STATIC, "static noinline "),
    Rule(Kind.ATTRIBUTE, _STATIC, "static __always_inline "),
    Rule(Kind.ATTRIBUTE, _STATIC, "static __cold "),
    Rule(Kind.ATTRIBUTE, _STATIC, "static notrace "),
    Rule(Kind.ATTRIBUTE, _STATIC, "static __init "),
    Rule(Kind.ATTRIBUTE, _STATIC, "static noinstr "),
    Rule(Kind.ATTRIBUTE, _STATIC, ""),
    Rule(Kind.ATTRIBUTE, re.compile(r"^static inline (?=[^=;]*\()"), "static noinline "),
    Rule(Kind.ATTRIBUTE, re.compile(r"^(?=(?:int|void|bool|long|unsigned|struct)\b[^=;]*\()"), "__weak "),
    Rule(Kind.ATTRIBUTE, re.compile(r" __init(?= )"), ""),
    Rule(Kind.ATTRIBUTE, re.compile(r" (?:__read_mostly|__ro_after_init|__initdata)\b"), ""),
    Rule(Kind.ATTRIBUTE, re.compile(r"(?<=^EXPORT_SYMBOL)(?=\()"), "_GPL"),
    Rule(Kind.ATTRIBUTE, re.compile(r"(?<=^EXPORT_SYMBOL)_GPL(?=\()"), ""),
    Rule(Kind.STATIC_KEY, re.compile(r"(?<=STATIC_KEY_)FALSE(?=\()"), "TRUE"),
)
_ASM_RULES = (
    Rule(Kind.CONSTANT, re.compile(r"(?<=\$)(?:0x[0-9a-f]+|\d+)\b"), _next_number),
    Rule(Kind.CONSTANT, re.compile(r"(?<=\s)(?:0x[0-9a-f]+|\d+)(?=\(%)"), _next_number),
    Rule(Kind.REGISTER, *_words(_REGISTERS, "(?<=%)")),
    Rule(Kind.BRANCH, *_words(_BRANCHES, r"(?<=\s)", r"(?=\s)")),
    Rule(Kind.OPERATOR, *_words({"addq": "subq", "subq": "addq", "andl": "orl", "xorl": "orl", "shrl": "shll"})),
    Rule(Kind.CALLEE, re.compile(r"(?<=\bcall\s)[a-z_]\w+"), "memcpy"),
    Rule(Kind.ALTERNATIVE, *_words(_FEATURES)),
    Rule(Kind.ALTERNATIVE, re.compile(r"X86_FEATURE_(?!XMM\b)\w+"), "X86_FEATURE_XMM"),
    Rule(Kind.EXTABLE, *_words(_EXTABLE, r"\b", r"(?=\()")),
    Rule(Kind.ATTRIBUTE, *_words({"SYM_FUNC_START": "SYM_CODE_START", "SYM_INNER_LABEL": "SYM_INNER_LABEL_ALIGN"})),
    Rule(Kind.ATTRIBUTE, *_words({"SYM_FUNC_START": "SYM_FUNC_START_WEAK", "SYM_CODE_START": "SYM_CODE_START_LOCAL"})),
    Rule(Kind.STATEMENT, re.compile(r"(?<=^\t)(?:mov|add|xor|push|pop|inc|dec|lea)\w* [^;]*$"), "nop"),
)


def _code_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines that are no comment, directive or part of a macro."""
    comment = macro = False
    for number, line in enumerate(text.split("\n")):
        if comment:
            comment = "*/" not in line
            continue
        stripped = line.strip()
        continued = macro
        macro = (continued or stripped.startswith("#")) and line.endswith("\\")
        if continued or stripped.startswith(("#", "//")) or not stripped:
            continue
        if "/*" in line:
            comment = "*/" not in line
            continue
        yield number, line


def _rules(line: str, is_assembly: bool) -> tuple[Rule, ...]:
    if is_assembly:
        return _ASM_RULES
    if not line.startswith(("\t", " ")):
        return _TOP_RULES
    if re.match(r"^\s*(?:\.\w+\s*=|\[.*\]\s*=|\{.*\},?$|\"[^\"]*\",$|0x\w+,)", line):
        return _TABLE_RULES
    return _C_RULES if re.search(r"[;(){}]|&&|\|\|", line) else ()


def _is_prototype(lines: list[str], number: int) -> bool:
    """Say whether what begins here is declared and not defined; only functions are asked about."""
    for line in lines[number : number + 8]:
        if line.startswith("{"):
            return False
        if line.rstrip().endswith(";"):
            return True
    return True


def _sites(text: str, is_assembly: bool) -> Iterator[tuple[Rule, int, str]]:
    """Yield each rule that fits a line, the line's number (from 0) and what becomes of it."""
    lines = text.split("\n")
    for number, line in _code_lines(text):
        for rule in _rules(line, is_assembly):
            if '"' in line and rule.kind in (Kind.OPERATOR, Kind.CONSTANT, Kind.CONDITION):
                continue
            if rule.new in ("", "__weak ") or (isinstance(rule.new, str) and rule.new.startswith("static ")):
                is_function = rule.pattern.pattern.startswith(("^static", "^(?=(?:int"))
                if is_function and _is_prototype(lines, number):
                    continue
            new = rule.pattern.sub(rule.new, line, count=1)
            balanced = all(
                new.count(one) - new.count(other) == line.count(one) - line.count(other) for one, other in ("()", "{}")
            )
            if new != line and balanced:
                yield rule, number, new


def mutations(name: str, source: str, text: str, seed: int = 1, per_kind: int = 1) -> list[Mutation]:
    """Return changes of one source, up to ``per_kind`` of each kind, the same for the same seed."""
    by_kind: dict[Kind, list[tuple[int, str]]] = {}
    for rule, number, new in _sites(text, source.endswith(".S")):
        by_kind.setdefault(rule.kind, []).append((number, new))
    lines = text.split("\n")
    result = []
    for kind, sites in by_kind.items():
        order = random.Random(f"{seed}:{source}:{kind.value}")
        for number, new in order.sample(sites, min(per_kind, len(sites))):
            changed = "\n".join([*lines[:number], new, *lines[number + 1 :]])
            result.append(Mutation(name, kind, source, number + 1, lines[number], new, {source: changed}))
    return result


class Row(NamedTuple):
    """A row of source_mutations.toml; ``file`` is empty for the source of the object."""

    object: str
    kind: Kind
    old: str
    new: str
    file: str = ""

    def apply(self, source: str, text: str) -> Mutation | None:
        """Return the change of a file, None when the row does not apply to it."""
        at = text.find(self.old)
        if at < 0:
            return None
        changed = f"{text[:at]}{self.new}{text[at + len(self.old) :]}"
        line = text.count("\n", 0, at) + 1
        file = self.file or source
        return Mutation(self.object, self.kind, file, line, self.old, self.new, {file: changed})


def rows() -> list[Row]:
    """Return the recorded changes."""
    with TABLE.open("rb") as file:
        return [Row(**{**row, "kind": Kind(row["kind"])}) for row in tomllib.load(file)["mutation"]]


def patches(tree: Path) -> Iterator[Mutation]:
    """Yield the patches of selftests/cases, once for each object that they reach; lines may move in them."""
    release = (tree / "include/config/kernel.release").read_text()
    for case in sorted(path for path in CASES.iterdir() if (path / "patch").is_file()):
        special = [path for path in case.glob("patch-*") if release.startswith(path.name.partition("-")[2] + ".")]
        texts = _patched(tree, (special or [case / "patch"])[0])
        for file in texts:
            inside = (tree / file).parent.glob(".*.o.cmd") if file.endswith(".h") else ()
            names = [path.name[1:-4] for path in inside if f"{file} " in path.read_text()]
            for name in names or [f"{Path(file).stem}.o"]:
                yield Mutation(f"{Path(file).parent}/{name}", Kind.PATCH, file, 0, "", case.name, texts)


def _patched(tree: Path, patch: Path) -> dict[str, str]:
    """Return what a patch makes of the files it names."""
    text = patch.read_text()
    files = re.findall(r"^\+\+\+ b/(\S+)", text, re.MULTILINE)
    with tempfile.TemporaryDirectory() as name:
        for file in files:
            place = Path(name) / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tree / file, place)
        subprocess.run(["patch", "-s", "-p1", "-d", name], input=text, text=True, check=True)
        return {file: (Path(name) / file).read_text("utf-8", "surrogateescape") for file in files}
