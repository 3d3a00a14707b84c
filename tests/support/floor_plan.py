"""`python -m tests.support.floor_plan`: write the floor plan in docs/architecture.md from the packages' own sentences."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("core", "audit", "policies", "proxy", "sentinel")
BEGIN, END = "<!-- floor plan: python -m tests.support.floor_plan -->\n", "<!-- end -->"
APART = {"migrations", "management", "commands", "templatetags", "__pycache__"}


def rooms() -> list[Path]:
    """Every package with a sentence of its own, those below after those that hold them."""
    found = [place.parent for package in PACKAGES for place in (ROOT / package).rglob("__init__.py")]
    inner = [room for room in found if not APART & set(room.relative_to(ROOT).parts)]
    return sorted(inner, key=lambda room: (PACKAGES.index(room.relative_to(ROOT).parts[0]), room))


def plan() -> str:
    """The floor plan as a list: a room, its sentence, its modules."""
    lines = []
    for room in rooms():
        name = room.relative_to(ROOT)
        sentence = (ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "").splitlines()[0]
        modules = ", ".join(f"`{place.stem}`" for place in sorted(room.glob("*.py")) if place.stem != "__init__")
        indent = "  " * (len(name.parts) - 1)
        lines.append(f"{indent}- **{name}/** {sentence}" + (f" {modules}" if modules else ""))
    return "\n".join(lines) + "\n"


def written(page: str) -> str:
    """The page with the plan of today."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + plan() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
