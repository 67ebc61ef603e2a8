"""Draw the graphs of the agents beside this file: `python agents/draw_graphs.py` (needs Graphviz).

Each PNG carries what it shows as text, nodes and edges in JSON, so that a test can compare it with
the graph.
"""

import io
import json
import runpy
import shutil
import subprocess
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

FOLDER = Path(__file__).parent
NAMES = ("perception", "dialog", "detection", "modality_experts", "api_control")
KEY = "graph"
DOT = shutil.which("dot") or "/usr/bin/dot"
STYLE = (
    'graph [rankdir=LR, dpi=110, pad=0.15, nodesep=0.3, ranksep=0.45, bgcolor="white"];'
    'node [shape=box, style="rounded,filled", fillcolor="#e3edf7", color="#0055a4", '
    'fontname="DejaVu Sans", fontsize=11, margin="0.14,0.07"];'
    'edge [color="#57534e", fontname="DejaVu Sans", fontsize=9, arrowsize=0.7];'
)


def shown(graph):
    """Nodes, and edges as [from, to, whether it is one of several choices]."""
    drawn = graph.get_graph()
    edges = sorted([edge.source, edge.target, edge.conditional] for edge in drawn.edges)
    return {"nodes": sorted(drawn.nodes), "edges": edges}


def short(name):
    return {"__start__": "start", "__end__": "end"}.get(name, name.replace("Middleware", ""))


def dot(what):
    lines = [STYLE, '{rank=source; "__start__"}', '{rank=sink; "__end__"}']
    for name in what["nodes"]:
        look = ', shape=oval, fillcolor="#f5f5f4"' if name.startswith("__") else ""
        lines.append(f'"{name}" [label="{short(name)}"{look}];')
    for source, target, conditional in what["edges"]:
        look = " [style=dashed]" if conditional else ""
        lines.append(f'"{source}" -> "{target}"{look};')
    return "digraph {" + "\n".join(lines) + "}"


def draw(name):
    what = shown(runpy.run_path(str(FOLDER / f"{name}.py"))["graph"])
    made = subprocess.run([DOT, "-Tpng"], input=dot(what).encode(), capture_output=True, check=True)
    info = PngInfo()
    info.add_text(KEY, json.dumps(what))
    picture = Image.open(io.BytesIO(made.stdout)).convert("P", palette=Image.Palette.ADAPTIVE)
    picture.save(FOLDER / f"{name}.png", pnginfo=info, optimize=True)


if __name__ == "__main__":
    for agent in NAMES:
        draw(agent)
