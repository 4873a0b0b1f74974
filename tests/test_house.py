# SPDX-License-Identifier: GPL-2.0-only
"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_build import FakeBuild

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kbuild_klp"
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "selftests").rglob("*.py"))]
SHIPPED = (
    "special/special.toml",
    "py.typed",
    "kbuild/Makefile.klp",
    "kbuild/Kconfig.fragment",
    "kbuild/livepatch_helpers.h",
    "kbuild/objtool",
    "kbuild/python",
)
MOST_LINES = 450

# A module may import from its own folder, and from those above it in this list.
LAYERS = (
    "errors",
    "processes",
    "containers",
    "elf",
    "arch",
    "source",
    "special",
    "kernel",
    "object",
    "dwarf",
    "checksum",
    "builds",
    "changes",
    "lines",
    "explain",
    "livepatch",
    "report",
    "compare",
    "extract",
    "module",
    "kbuild",
    "cli",
    "__main__",
)
_FILE_OF_OURS = r"(?<![\w./-])((?:\w+/)*\w+\.py)(?<!/NAME\.py)\b"
LOOSE = {"errors", "processes", "__main__"}
RANK = {name: rank for rank, name in enumerate(LAYERS)}
HEAVY = ("numpy", "capstone", "elftools", "sh", "hypothesis", "asyncio", "multiprocessing", "tomllib")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


_ALL = {_module(path) for path in MODULES} - {PACKAGE.name}


def _layer(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE or path.stem != "__init__"], ids=_name
)
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in RANK, "a new module needs a place in LAYERS"
    used = {name for name in _imports(path) if name.startswith("kbuild_klp.")}
    layers = {_layer(name) for name in used if _layer(name) in RANK}
    assert {layer for layer in layers if RANK[layer] > RANK[own]} == set()


def test_no_module_lies_about() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == LOOSE


def test_files_that_are_named_exist() -> None:
    """A docstring or comment that sends the reader to a file of ours; NAME.py is an example."""
    files = {f"/{_name(path)}" for path in PYTHON}
    named = {(_name(path), name) for path in MODULES for name in re.findall(_FILE_OF_OURS, path.read_text("utf-8"))}
    assert [it for it in sorted(named) if not any(file.endswith(f"/{it[1]}") for file in files)] == []


def test_each_name_means_one_thing() -> None:
    """Commands apart: cli/install.py is the command line of kbuild/install.py."""
    modules = Counter(path.stem for path in MODULES if path.stem != "__init__" and path.parent.name != "cli")
    classes = Counter(
        node.name
        for path in MODULES
        for node in _tree(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in (*modules.items(), *classes.items()) if count > 1] == []


def test_modules_of_a_folder_form_no_circle() -> None:
    graph = {_module(path): {name for name in _imports(path) if name in _ALL} - {_module(path)} for path in MODULES}
    while leaves := {name for name, used in graph.items() if not used & graph.keys()}:
        graph = {name: used for name, used in graph.items() if name not in leaves}
    assert graph == {}


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernel").glob("*.py")), ids=_name)
def test_a_build_tree_knows_nothing_of_objects(path: Path) -> None:
    used = {_layer(name) for name in _imports(path) if name.startswith("kbuild_klp.")}
    assert used <= {"kernel", "containers", "errors", "processes"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE / "cli"], ids=_name)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    allowed = {"kbuild_klp/__main__.py", "kbuild_klp/kbuild/collector.py"}  # the latter is a program of its own
    if _name(path) in allowed:
        return
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in (
                "print",
                "exit",
                "quit",
                "sys.exit",
                "os._exit",
                "sys.stdout.write",
                "sys.stderr.write",
            )
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert "SystemExit" not in ast.unparse(node.exc)


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "processes.py"], ids=_name)
def test_programs_are_run_in_one_place(path: Path) -> None:
    """Elsewhere one would be run without its errors in one line, and without a thought for Ctrl-C and the language."""
    assert _imports(path) & {"sh", "subprocess", "asyncio.subprocess", "pty"} == set()
    called = {ast.unparse(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)}
    assert [name for name in called if re.match(r"os\.(system|popen|fork|exec|spawn|posix_spawn)", name)] == []


_FRESH = """
import sys
from kbuild_klp.cli.main import main
status = main(["diff", "old", "new"])
print(status, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_comparison_of_fresh_trees_imports_little(tmp_path: Path) -> None:
    for side in ("old", "new"):
        FakeBuild(tmp_path / side)
    command = [sys.executable, "-c", _FRESH]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    status, *modules = done.stdout.splitlines()[-1].split()
    assert status == "0"
    assert set(HEAVY) & set(modules) == set()


def test_checksums_that_are_up_to_date_import_little(tmp_path: Path) -> None:
    FakeBuild(tmp_path / "old")
    command = [sys.executable, "-c", _FRESH.replace('["diff", "old", "new"]', '["checksum", "--built", "old"]')]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert set(HEAVY) & set(done.stdout.split()) == set()


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_everything_public_is_documented(path: Path) -> None:
    tree = _tree(path)
    assert ast.get_docstring(tree) or path.name == "__main__.py", "the module"
    bodies: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    while bodies:
        prefix, body = bodies.pop()
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "_"
            ):
                assert ast.get_docstring(node), f"{prefix}{node.name}"
                if isinstance(node, ast.ClassDef):
                    bodies.append((f"{node.name}.", node.body))


@pytest.mark.parametrize("path", PYTHON, ids=_name)
def test_each_file_says_its_license_and_is_not_too_long(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert "SPDX-License-Identifier: GPL-2.0-only" in "".join(lines[:2])
    assert len(lines) <= MOST_LINES


def _tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("no git checkout")
    return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def test_no_file_names_a_machine() -> None:
    # In two pieces, so that this file is none of them.
    paths = "|".join(re.escape(f"/{name}/") for name in ("work", "root", "farm", "home"))
    pattern = re.compile(rf"(?<![\w.~$}}/-])(?:{paths})\w")
    found = []
    for path in _tracked():
        if path.is_file() and path.suffix not in (".lock",):
            text = path.read_text("utf-8", "replace")
            found += [f"{_name(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert found == []


def test_what_is_shipped_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in SHIPPED:
        assert (PACKAGE / name).is_file()
        assert f'"{name}"' in text


def _can_import(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


def test_a_wheel_holds_files_and_not_links(tmp_path: Path) -> None:
    if not any(_can_import(name) for name in ("setuptools.command.bdist_wheel", "wheel.bdist_wheel")):
        pytest.skip("needs setuptools 70.1 or wheel")
    source = tmp_path / "source"
    for path in _tracked():
        if path.exists() and (path.is_relative_to(PACKAGE) or path.parent == ROOT):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_symlink():
                target.symlink_to(path.readlink())
            else:
                target.write_bytes(path.read_bytes())
                target.chmod(path.stat().st_mode)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (built,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as file:
        for name in SHIPPED:
            member = file.getinfo(f"kbuild_klp/{name}")
            assert file.read(member) == (PACKAGE / name).read_bytes()
            mode = member.external_attr >> 16
            assert mode & 0o170000 in (0, 0o100000), "a symbolic link"
            assert name not in ("kbuild/objtool", "kbuild/python") or mode & 0o111, "make runs it"
        names = file.namelist()
    modules = {str(path.relative_to(ROOT)) for path in MODULES if path in set(_tracked())}
    assert modules <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "selftests/"))]
