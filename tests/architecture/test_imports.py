"""The house rules of DESIGN.md section 4, read from the source."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pigeon_cli

ROOT = Path(pigeon_cli.__file__).parent
# ``report`` needs nothing but ``core`` (tested below), so it stands where the training sheets can reach it.
LAYERS = (
    "core", "report", "weights", "history", "metrics", "models", "engine", "pipeline", "training", "evaluation", "cli",
)  # fmt: skip
HEAVY = {"torch", "transformers", "diffusers", "peft", "accelerate"}
MOST_LINES = 400
LONGEST_FUNCTION = 60

SOURCES = sorted(ROOT.rglob("*.py"))
TESTS = sorted((ROOT.parent / "tests").rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT.parent))


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            if module == "pigeon_cli":
                yield from (f"pigeon_cli.{alias.name}" for alias in node.names)


def at_import_time(tree: ast.Module) -> ast.Module:
    """The module without the bodies of functions and without what only a type checker reads."""
    kept: list[ast.stmt] = []
    for node in tree.body:
        checker_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if not checker_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kept.append(node)
    return ast.Module(kept, [])


def layer(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "pigeon_cli" and parts[1] in LAYERS else None


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_folder_imports_only_folders_above_it(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if len(parts) == 1:
        return
    assert parts[0] in (*LAYERS, "assets"), f"{parts[0]} is no folder of the layout"
    allowed = LAYERS[: LAYERS.index(parts[0]) + 1] if parts[0] in LAYERS else ()
    for module in imported(ast.parse(path.read_text("utf-8"))):
        assert layer(module) is None or layer(module) in allowed, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=name)
def test_core_has_no_third_party_imports(path: Path) -> None:
    for module in imported(ast.parse(path.read_text("utf-8"))):
        top = module.split(".")[0]
        assert top == "pigeon_cli" or top in sys.stdlib_module_names, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "report").rglob("*.py")), ids=name)
def test_report_knows_no_torch(path: Path) -> None:
    for module in imported(ast.parse(path.read_text("utf-8"))):
        assert module.split(".")[0] not in HEAVY, f"{name(path)} imports {module}"
        assert layer(module) in (None, "core", "report"), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", sorted((ROOT / "cli").rglob("*.py")), ids=name)
def test_commands_import_nothing_heavy_at_their_top(path: Path) -> None:
    for module in imported(at_import_time(ast.parse(path.read_text("utf-8")))):
        assert module.split(".")[0] not in HEAVY, f"{name(path)} imports {module}"
        assert layer(module) in (None, "core", "history", "report", "cli"), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_are_absolute_and_the_judge_stays_outside(path: Path) -> None:
    for module in imported(ast.parse(path.read_text("utf-8"))):
        assert not module.startswith((".", "efficientnet")), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name)
def test_click_is_never_imported(path: Path) -> None:
    assert "click" not in {module.split(".")[0] for module in imported(ast.parse(path.read_text("utf-8")))}


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name)
def test_sizes(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{name(path)}: {node.name} has {length} lines"
