"""The report of a training: curves, a page that needs nothing else, and a record for programs."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

from ipse._files import atomic_write

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d1f23; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem 1.2rem .2rem 0; vertical-align: top; }
th { white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr + tr td { border-top: 1px solid #e3e5e8; } img { max-width: 100%; }
pre { background: #f5f6f7; padding: 1rem; overflow-x: auto; font-size: 13px; }
"""


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    path = Path(folder) / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def draw_curves(log: list[dict[str, Any]], path: str | Path) -> None:
    """Draw loss, its parts, learning rate and figures over steps; a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    steps = [line["step"] for line in log]
    left.plot(steps, [line["loss"] for line in log], color="black", linewidth=1.6, label="loss")
    names = list(log[0]["parts"]) if log else []
    if 1 < len(names) <= 8:
        for name in names:
            left.plot(steps, [line["parts"][name] for line in log], linewidth=0.9, label=name)
        left.legend(fontsize=8)
    left.set_title("Loss")
    middle.plot(steps, [line["rate"] for line in log], color="tab:gray")
    middle.set_title("Learning rate")
    judged = [line for line in log if "figures" in line]
    shown = [name for name in (judged[-1]["figures"] if judged else {}) if "." not in name or "mean" in name][:6]
    for name in shown:
        known = [(line["step"], line["figures"][name]) for line in judged if name in line["figures"]]
        right.plot(*zip(*known, strict=True), marker="o", markersize=3, label=name)
    if shown:
        right.legend(fontsize=8)
    right.set_title("Held-out figures")
    for axes in (left, middle, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    with atomic_write(path) as out:
        out.write(file.getvalue())


def write_report(folder: str | Path, record: dict[str, Any]) -> None:
    """Write ``record.json``, ``curves.png`` and ``report.html`` of a finished run."""
    import yaml

    folder = Path(folder)
    draw_curves(read_log(folder), folder / "curves.png")
    with atomic_write(folder / "record.json") as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    picture = base64.b64encode((folder / "curves.png").read_bytes()).decode()
    facts = {
        "Weights": f"{record['weights']}, {record['bytes'] / 1e6:.2f} MB, {record['parameters']:,} parameters",
        "Trained on": f"{record['pictures']:,} pictures of {record['people']:,} people",
        "Judged on": f"{record['judged_pictures']:,} pictures of {record['judged_people']:,} other people",
        "Data": record["data_fingerprint"],
        "Recipe": record["recipe_fingerprint"],
        "Seed": record["seed"],
        "Steps": f"{record['steps']:,} in {record['seconds'] / 60:.1f} minutes",
        "Device": record["gpu"] or record["device"],
        "Machine": ", ".join(f"{key} {value}" for key, value in record["machine"].items()),
        "Versions": ", ".join(f"{key} {value}" for key, value in record["versions"].items()),
    }
    figures = "".join(
        f"<tr><td>{html.escape(name)}</td><td class=number>{value:.4f}</td></tr>"
        for name, value in record["figures"].items()
    )
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts.items())
    name = html.escape(record["name"])
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1><table>{rows}</table>"
        f"<h2>Figures on people it was not trained on</h2><table>{figures or '<tr><td>none were held out'}</table>"
        f'<h2>Curves</h2><img alt="Loss, learning rate and figures over steps" src="data:image/png;base64,{picture}">'
        f"<h2>Recipe</h2><pre>{html.escape(yaml.safe_dump(record['recipe'], sort_keys=False))}</pre></html>\n"
    )
    with atomic_write(folder / "report.html") as file:
        file.write(page.encode())
