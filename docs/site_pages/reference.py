"""The reference: every public name of lincon, as its docstring says."""

import inspect
from collections.abc import Iterator

import lincon

MODULES = {
    "lincon.generator": "What an author of a generator writes, and what follows from it.",
    "lincon.generators": "The registry, and the base of generators with one nonzero a row.",
    "lincon.testing": "The laws of a generator.",
    "lincon.counter": "Random bits that are the same everywhere.",
    "lincon.experiments": "Comparisons of schemes on data, from Python.",
    "lincon.slicing": "Rows of tensors taken away.",
    "lincon.exporting": "Models for elsewhere.",
    "lincon.int8": "Execution in eight bits.",
    "lincon.recycling": "Large buffers that are used again.",
    "lincon.integrations.opacus": "Private training beside frozen weights.",
    "lincon.integrations.transformers": "`save_pretrained` and `from_pretrained`.",
}
"""Public modules beside `lincon` itself."""

MEMBERS = {"lincon.generators": "OneNonzero, available, build, get, register"}
"""Members of a module that has more than are shown here."""


def pages() -> Iterator[tuple[str, str]]:
    yield "reference/lincon.md", _package()
    for module, what in MODULES.items():
        yield f"reference/{module}.md", _module(module, what)


def _package() -> str:
    public = {name: getattr(lincon, name) for name in dir(lincon) if not name.startswith("_")}
    functions = [name for name, value in public.items() if inspect.isfunction(value)]
    classes = [name for name, value in public.items() if inspect.isclass(value)]
    errors = [name for name in classes if issubclass(public[name], Exception)]
    others = [name for name in classes if name not in ("Generator", *errors)]
    return "\n\n".join(
        [
            "# lincon",
            "Every public name. Its modules have pages of their own.",
            "## Functions",
            *_directives("autofunction", functions),
            "## Classes",
            *_directives("autoclass", others, ":members:"),
            "## Errors",
            *_directives("autoclass", errors, ":show-inheritance:"),
        ]
    )


def _directives(directive: str, names: list[str], *options: str) -> Iterator[str]:
    return (_directive(directive, f"lincon.{name}", *options) for name in names)


def _module(module: str, what: str) -> str:
    members = f":members: {MEMBERS[module]}" if module in MEMBERS else ":members:"
    directive = _directive("automodule", module, members)
    return f"# {module}\n\n{what}\n\n{directive}\n"


def _directive(name: str, of: str, *options: str) -> str:
    lines = "".join(f"\n   {option}" for option in options)
    return f"```{{eval-rst}}\n.. {name}:: {of}{lines}\n```"
