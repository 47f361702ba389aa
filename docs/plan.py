"""The plan of the project, drawn from its code: which pipeline and which room imports which room.

    python docs/plan.py      # writes docs/plan.svg

A pipeline is imported by the name of its package; a dot is an import, at the top of a module or inside a function.
"""

import ast
from html import escape
from pathlib import Path

PLAN = Path(__file__).with_suffix(".svg")
PACKAGE = Path(__file__).parents[1] / "src" / "partcraft_kedro"
ROOMS: tuple[str, ...] = ("images", "drawn", "features", "parts", "prompts", "model", "training", "generation")
ROOMS += ("export", "evaluation", "experiments", "compose", "pretraining")
PIPELINES = {
    "images": "records, quarantine",
    "features": "features",
    "parts": "part_predictor, part_masks, codes, part_names",
    "prompts": "prompts",
    "train": "latents, adapter, training_losses",
    "generate": "picture_plan, generated_pictures",
    "evaluate": "scores, score_table, metrics",
    "report": "figures",
    "experiments": "sweep_summary, experiments_page",
    "pretrain": "tiny",
}
"""In the order in which they run, each with the datasets that others, or people, look for."""
_CHAIN = 8  # the first so many follow each other
_LEFT, _TOP, _COLUMN, _ROW, _BOX = 530, 185, 44, 34, 130
_INK, _PALE, _TEAL, _GREY = "#263238", "#eceff1", "#00796b", "#607d8b"


def rooms_of(folder: Path) -> set[str]:
    """The rooms that any module of a folder imports."""
    rooms = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                rooms |= {name.split(".")[1] for name in names if name.startswith("partcraft_kedro.")}
    return rooms & set(ROOMS)


def draw() -> str:
    """The plan as SVG."""
    lines: list[str] = []
    width = _LEFT + _COLUMN * len(ROOMS) + 70
    pipelines_end = _TOP + _ROW * len(PIPELINES)
    rooms_top = pipelines_end + 50
    height = rooms_top + _ROW * len(ROOMS) + 20

    def text(x: float, y: float, words: str, style: str = "", **extra: object) -> None:
        more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in extra.items())
        lines.append(f'<text x="{x:g}" y="{y:g}" {style}{more}>{escape(words)}</text>')

    def dots(y: float, rooms: set[str], own: str | None = None) -> None:
        for i, room in enumerate(ROOMS):
            x = _LEFT + _COLUMN * (i + 0.5)
            if room == own:
                lines.append(f'<rect x="{x - 7:g}" y="{y - 7:g}" width="14" height="14" fill="{_TEAL}"/>')
            elif room in rooms:
                lines.append(f'<circle cx="{x:g}" cy="{y:g}" r="6" fill="{_INK}"/>')

    for i in range(0, len(ROOMS), 2):  # stripes lead the eye
        left = _LEFT + _COLUMN * i
        lines.append(f'<rect x="{left}" y="{_TOP - 8}" width="{_COLUMN}" height="{height - _TOP - 2}" fill="{_PALE}"/>')
    for i, room in enumerate(ROOMS):
        x = _LEFT + _COLUMN * (i + 0.5)
        text(x + 4, _TOP - 14, room, 'font-weight="bold"', transform=f"rotate(-50 {x + 4:g} {_TOP - 14})")
    text(20, 34, "Pipelines", 'font-weight="bold" font-size="18"')
    text(20, 56, "know Kedro and MLflow; they call the library", f'fill="{_GREY}"')
    text(_LEFT, 34, "Rooms of the library", 'font-weight="bold" font-size="18"')
    text(_LEFT, 56, "plain PyTorch, NumPy and pandas: know neither", f'fill="{_GREY}"')
    lines.append(
        f'<line x1="{_LEFT - 8}" y1="{_TOP - 8}" x2="{_LEFT - 8}" y2="{pipelines_end}" stroke="{_TEAL}" '
        'stroke-width="4"/>'
    )
    text(_LEFT - 18, _TOP - 14, "the wall", f'fill="{_TEAL}" text-anchor="end" font-style="italic"')

    for i, (pipeline, leaves) in enumerate(PIPELINES.items()):
        y = _TOP + _ROW * (i + 0.5)
        lines.append(
            f'<rect x="20" y="{y - 12:g}" width="{_BOX}" height="24" rx="5" fill="white" stroke="{_TEAL}" '
            'stroke-width="1.5"/>'
        )
        text(20 + _BOX / 2, y + 5, pipeline, 'text-anchor="middle"')
        if 0 < i < _CHAIN:
            lines.append(
                f'<line x1="{20 + _BOX / 2:g}" y1="{y - 22:g}" x2="{20 + _BOX / 2:g}" y2="{y - 14:g}" stroke="{_TEAL}" '
                'stroke-width="2" marker-end="url(#tip)"/>'
            )
        text(_BOX + 34, y + 4, f"→ {leaves}", f'fill="{_GREY}" font-size="13"')
        dots(y, rooms_of(PACKAGE / "pipelines" / pipeline))

    text(_LEFT - 18, rooms_top - 16, "a room knows only those before it", f'fill="{_GREY}" text-anchor="end"')
    for i, room in enumerate(ROOMS):
        y = rooms_top + _ROW * (i + 0.5)
        text(_LEFT - 18, y + 5, room, 'font-weight="bold" text-anchor="end"')
        dots(y, rooms_of(PACKAGE / room), own=room)

    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        f' font-family="system-ui, sans-serif" font-size="15" fill="{_INK}" role="img">',
        "<title>Pipelines and the rooms that they import, then rooms and the rooms that they import</title>",
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="4" refY="3" markerWidth="4" markerHeight="4" orient="auto">',
        f'<path d="M0 0L6 3L0 6z" fill="{_TEAL}"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="white"/>',
    ]
    return "\n".join([*head, *lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PLAN.write_text(draw())
