"""The rules of the house, measured: exits with 1 and names every place that breaks one.

A function has at most `COMPLEXITY` decisions and `ARGUMENTS` arguments, a comprehension at most two
`for`s, a line of code at most `WIDTH` characters. No file reaches into the private names (`x._y`) of
another. Imports at the top of files, those for types included, have no circle, and the core imports
no task.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

FOLDERS = "lincon", "generators", "tasks", "benchmarks", "docs", "examples", ".ci"
COMPLEXITY, ARGUMENTS, FORS, WIDTH = 12, 6, 2, 100

MODEL = "each keyword is an option of the model's name, as in `vit-tiny:patch=2,depth=6`"
DATA = "each keyword is an option of the data set's name, as in `folder:size=32,flip=1`"
MANY_ARGUMENTS = {
    "lincon/attaching/constrain.py: constrain": "each keyword is a choice of the user's",
    "generators/ring.py: Ring.__init__": "each option of the paper's ablations is a keyword",
    "generators/matrix.py: Matrix.__init__": "a file gives each of its tables by a keyword",
    "generators/nullspace.py: Nullspace.__init__": "a file gives each of its tables by a keyword",
    "tasks/classification/data/own.py: OwnImages.__init__": DATA,
    "tasks/classification/data/class_folders.py: Folder.__init__": DATA,
    "tasks/classification/models/resnet.py: ResNet.__init__": MODEL,
    "tasks/classification/models/vit.py: ViT.__init__": MODEL,
    "tasks/indoor/models/cascade.py: Cascade.__init__": MODEL,
    "tasks/pose/models/hourglass.py: Hourglass.__init__": MODEL,
}
"""Functions that may have more arguments, each with its reason."""

COMMANDS = "tasks/commands/"
"""In this folder an argument of a command is an option of the command line; commands have as many as they offer."""

DOORS = "lincon/cli.py", "lincon/experiments.py"
"""The files of the core that hand on to the tasks; nothing of the core imports them at its top."""

NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
"""Public methods of every named tuple, whose names begin with a line so that no field can have them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
BRANCHES = ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.match_case


def complexity(function: ast.AST) -> int:
    """One, and one for each branch, loop, `for` and `if` of a comprehension, and operand of `and`, `or` but the first.

    >>> complexity(ast.parse("def f(x): return [y for y in x if y] or None"))
    4
    """
    decisions = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            decisions += 1
        elif isinstance(node, ast.BoolOp):
            decisions += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            decisions += 1 + len(node.ifs)
    return decisions


def arguments(function: Function) -> int:
    """How many arguments there are, without `self` and `cls`."""
    named = function.args
    names = [arg.arg for arg in (*named.posonlyargs, *named.args, *named.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, Function):
            yield prefix + node.name, node
        inside = f"{prefix}{node.name}." if isinstance(node, Function | ast.ClassDef) else prefix
        yield from functions(node, inside)


def code_lines(source: str, tree: ast.AST) -> set[int]:
    """Numbers of the lines that hold code: no docstring and no comment alone."""
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - prose


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE | {"_"}


def defined(tree: ast.AST) -> set[str]:
    """Private names that a file gives to something: functions, classes, attributes, fields, variables."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if is_private(name)}


def is_own(node: ast.expr) -> bool:
    """Whether an expression is an object's own self: `self`, `cls`, `super()`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def reaches(tree: ast.AST, mine: set[str], ours: set[str]) -> Iterator[tuple[int, str]]:
    """Places where a private name of another of our files is used."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ours - mine and not is_own(node.value):
            yield node.lineno, f"reaches into another file: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lincon"):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, f"imports a private name: {alias.name}"


def broken(path: str, source: str, ours: set[str]) -> Iterator[str]:
    """Every rule that a file breaks, as text."""
    tree = ast.parse(source)
    for name, function in functions(tree):
        where, decisions, count = f"{path}: {name}", complexity(function), arguments(function)
        if decisions > COMPLEXITY:
            yield f"{where} has a complexity of {decisions}, at most {COMPLEXITY}"
        if count > ARGUMENTS and where not in MANY_ARGUMENTS and not path.startswith(COMMANDS):
            yield f"{where} has {count} arguments, at most {ARGUMENTS}"
    places = [*comprehensions(tree), *wide_lines(source, tree), *reaches(tree, defined(tree), ours)]
    for number, what in places:
        yield f"{path}:{number}: {what}"


def comprehensions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Comprehensions with more than `FORS` fors."""
    for node in ast.walk(tree):
        if isinstance(node, Comprehension) and len(node.generators) > FORS:
            yield node.lineno, f"a comprehension has {len(node.generators)} fors"


def wide_lines(source: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Lines of code with more than `WIDTH` characters."""
    lines = source.splitlines()
    for number in sorted(code_lines(source, tree)):
        if number <= len(lines) and len(lines[number - 1]) > WIDTH:
            yield number, f"a line of {len(lines[number - 1])} characters, at most {WIDTH}"


def module_of(path: str) -> str:
    """The dotted name of a file.

    >>> module_of("generators/ring.py"), module_of("lincon/files/__init__.py")
    ('lincon.generators.ring', 'lincon.files')
    """
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(["lincon", *parts] if parts[0] in ("generators", "tasks") else parts)


def imports(tree: ast.Module, modules: set[str]) -> set[str]:
    """Modules of ours that a file imports at its top, also where only type checkers do."""
    top = [
        statement for statement in tree.body if not isinstance(statement, Function | ast.ClassDef)
    ]
    found = set()
    for node in (node for statement in top for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules else node.module)
    return found & modules


def circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Modules that import one another, directly or by way of others."""
    reached = {module: set(imported) for module, imported in graph.items()}
    for middle in graph:
        for module in graph:
            if middle in reached[module]:
                reached[module] |= reached[middle]
    together = sorted(module for module in graph if module in reached[module])
    if together:
        yield (
            f"imports go in a circle: {', '.join(together)}; import from the module that defines a "
            "name, not from the package"
        )


def arrows(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Imports that break a rule."""
    modules = {module_of(path) for path in trees}
    graph = {module_of(path): imports(tree, modules) for path, tree in trees.items()}
    yield from circles(graph)
    for path in trees:
        core = path.startswith(("lincon/", "generators/")) and path not in DOORS
        for imported in sorted(graph[module_of(path)]):
            if core and imported.startswith("lincon.tasks"):
                yield f"{path}: the core imports a task: {imported}"


def main(root: Path) -> int:
    """Print what is broken under ``root``; how much that is."""
    files = {
        path.relative_to(root).as_posix(): path.read_text()
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        if not {"generators", "tasks"} & set(path.relative_to(root / folder).parts[:1])
        or folder != "lincon"
    }
    trees = {path: ast.parse(source) for path, source in files.items()}
    ours: set[str] = set().union(*(defined(tree) for tree in trees.values()))
    found = [line for path, source in files.items() for line in broken(path, source, ours)]
    found += arrows(trees)
    print("\n".join(found) or f"{len(files)} files keep the rules of the house")
    return len(found)


if __name__ == "__main__":
    sys.exit(1 if main(Path(__file__).resolve().parent.parent) else 0)
