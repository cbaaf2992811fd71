"""Render the figures in README.md and docs/ from benchmarks/results/*.json.

A block between two marker lines is replaced by a table of the figures whose names match a pattern:

    <!-- figures:world.* -->
    ...
    <!-- /figures -->

Several patterns are separated by spaces. Run without arguments to write, with --check to see whether all is up to date.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
from pathlib import Path
from typing import Any

from ipse import catalogue

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"^(?P<open><!-- figures:(?P<patterns>[^>]*?) -->)\n(?P<body>.*?)^(?P<close><!-- /figures -->)$", re.M | re.S
)
# What `ipse.measure.Evidence` puts behind the note of a figure that an earlier run measured.
_ORIGIN = re.compile(r"(?:; )?(?P<origin>measured \S+ at \S+ by `[^`]*`)$")
_MARKER = re.compile(r"^<!-- (figures:.*|/figures) -->$", re.M)


def pages(root: Path) -> list[Path]:
    """The pages that may hold figures."""
    return [path for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if path.is_file()]


def render(text: str, figures: dict[str, dict[str, Any]]) -> str:
    """Replace the marked blocks of a page.

    Raises
    ------
    ValueError
        If a marker has no partner, or a pattern matches no figure.
    """
    if len(_MARKER.findall(text)) != 2 * len(_BLOCK.findall(text)):
        raise ValueError("a figures marker has no partner")

    def block(match: re.Match[str]) -> str:
        names = []
        for pattern in match["patterns"].split():
            matching = [name for name in figures if fnmatch.fnmatchcase(name, pattern)]
            if not matching:
                raise ValueError(f"no figure is called {pattern}")
            names += [name for name in matching if name not in names]
        return f"{match['open']}\n{table([figures[name] for name in names])}\n{match['close']}"

    return _BLOCK.sub(block, text)


def table(figures: list[dict[str, Any]]) -> str:
    """A Markdown table; columns that would be empty are left out, and where figures come from is told once, below."""
    origins: list[str] = []

    def note(figure: dict[str, Any]) -> str:
        match = _ORIGIN.search(figure["note"])
        text = figure["note"][: match.start()] if match else figure["note"]
        if match:
            if match["origin"] not in origins:
                origins.append(match["origin"])
            text = f"{text} [{origins.index(match['origin']) + 1}]".strip()
        return text.replace("|", "\\|")

    rows = [
        {
            "Figure": f"`{figure['name']}`",
            "Value": quantity(figure["value"], figure["unit"]),
            "95 % interval": " – ".join(number(end) for end in figure["ci95"] or ()),
            "n": f"{figure['n']:,}",
            "Against": f"{figure['against']['name']}: {quantity(figure['against']['value'], figure['unit'])}"
            if figure["against"]
            else "",
            "Note": note(figure),
        }
        for figure in figures
    ]
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    right = {"Value", "95 % interval", "n"}
    lines = [columns, ["---:" if column in right else "---" for column in columns]]
    lines += [[row[column] for column in columns] for row in rows]
    told = [f"\n[{place}] {origin}" for place, origin in enumerate(origins, 1)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *told])


def number(value: float) -> str:
    """Four significant digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number(value)} {unit}".rstrip()


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Render or check all pages; the exit status is 1 if a page is out of date or cannot be rendered."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a page is out of date")
    check = parser.parse_args(arguments).check
    figures = catalogue.figures(root / "benchmarks" / "results")
    status = 0
    for page in pages(root):
        name, text = page.relative_to(root), page.read_text(encoding="utf-8")
        try:
            rendered = render(text, figures)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            status = 1
            continue
        if rendered == text:
            continue
        if check:
            print(f"{name} is out of date: run make report", file=sys.stderr)
            status = 1
        else:
            page.write_text(rendered, encoding="utf-8")
            print(f"{name} rendered")
    return status


if __name__ == "__main__":
    sys.exit(main())
