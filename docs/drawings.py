"""Draw the pictures of the documentation as SVG: `docs/generate.py` writes them.

The timeline is drawn from the defaults of `DrainPolicy`. Each picture has a light ground of its
own, so that it can be read on a dark page as well.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from graceful_asgi import DrainPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INK, FAINT, GROUND = "#1f2933", "#5a6672", "#fbfbf9"
GOOD, BAD = "#00796b", "#b3261e"
PHASES = ("#fff1c9", "#dcefe6", "#fadcd9", "#dfe6f5")
"""The grounds of the lame duck, draining, cancelling and cleanup."""

_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"


def text(
    x: float, y: float, words: str, *, fill: str = INK, size: int = 13, at: str = "start"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" text-anchor="{at}">'
        f"{escape(words)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str = INK, style: str = "") -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
        f'stroke-width="1.5" {style}/>'
    )


def box(x: float, y: float, width: float, height: float, fill: str, radius: float = 4) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" '
        f'fill="{fill}"/>'
    )


def picture(width: int, height: int, title: str, description: str, parts: Iterable[str]) -> str:
    """Return a whole SVG file. *title* and *description* are what a screen reader says."""
    markers = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        f'markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
        for name, colour in (("ink", INK), ("good", GOOD), ("bad", BAD))
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" style="{_FONT}">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(description)}</desc>",
            f"<defs>{markers}</defs>",
            box(0, 0, width, height, GROUND, 8),
            *parts,
            "</svg>\n",
        ]
    )


def timeline(policy: DrainPolicy | None = None) -> str:
    """Draw what a SIGTERM does, phase by phase, as long as *policy* lets each take."""
    policy = policy or DrainPolicy()
    lengths = (
        ("lame duck", policy.lame_duck_period),
        ("draining", policy.grace_period),
        ("cancelling", policy.cancel_period),
        ("cleanup", policy.cleanup_period),
    )
    total = sum(seconds for _, seconds in lengths)
    left, right, top, row = 150, 860, 78, 30
    scale = (right - left) / total

    def at(seconds: float) -> float:
        return round(left + seconds * scale, 1)

    rows: Sequence[tuple[str, float, float, str]] = (
        ("new connections", 0, lengths[0][1], "accepted"),
        ("new requests", 0, lengths[0][1] + lengths[1][1], "answered, with Connection: close"),
        ("readiness", 0, lengths[0][1] + lengths[1][1], "503"),
        ("WebSockets, SSE", 0, lengths[0][1], "closed in turn"),
        ("work in flight", 0, lengths[0][1] + lengths[1][1], "may finish"),
        (
            "what is left then",
            total - lengths[2][1] - lengths[3][1],
            total - lengths[3][1],
            "cancelled",
        ),
        ("lifespan.shutdown", total - lengths[3][1], total, "runs"),
    )
    bottom = top + row * len(rows) + 8
    parts = [text(left, 26, "SIGTERM", size=14)]
    began, heads = 0.0, []
    for (name, seconds), ground in zip(lengths, PHASES, strict=True):
        middle = at(began + seconds / 2)
        parts.append(box(at(began), 34, seconds * scale, bottom - 34, ground, 0))
        heads += [
            text(middle, 52, name, size=12, at="middle"),
            text(middle, 68, f"{seconds:g} s", fill=FAINT, size=12, at="middle"),
        ]
        began += seconds
    parts += heads
    for number, (name, start, end, what) in enumerate(rows):
        y = top + row * number
        wide = (end - start) * scale
        parts += [
            text(left - 10, y + 16, name, at="end"),
            box(at(start), y + 2, wide, row - 8, GOOD if what != "cancelled" else BAD),
            text(at(start) + wide / 2, y + 17, what, fill="#ffffff", size=11, at="middle"),
        ]
    end = at(total)
    parts += [
        line(left, 34, left, bottom, INK),
        line(end, 34, end, bottom, BAD, 'stroke-dasharray="4 3"'),
        text(end, bottom + 20, f"gone by {total + 0.5:g} s", fill=BAD, at="end"),
        text(
            left,
            bottom + 20,
            "A phase ends as soon as there is nothing left to wait for.",
            fill=FAINT,
        ),
    ]
    return picture(
        880,
        bottom + 34,
        "The timeline of a drain",
        f"After SIGTERM: {', '.join(f'{name} {seconds:g} s' for name, seconds in lengths)}. "
        f"The process is gone by {total + 0.5:g} s at the latest.",
        parts,
    )


Step = tuple[str, str, str]
"""Where an arrow goes (`>`, `<`; `-` is an event at the server), its words, its colour."""


def exchange(title: str, steps: Sequence[Step]) -> str:
    """Draw what goes on between a client and a server, from top to bottom."""
    client, server, step = 70, 400, 40
    height = 64 + step * len(steps)
    parts = [
        text(client, 26, "client", size=14, at="middle"),
        text(server, 26, "server", size=14, at="middle"),
        line(client, 36, client, height - 14, FAINT),
        line(server, 36, server, height - 14, FAINT),
    ]
    for number, (kind, words, colour) in enumerate(steps):
        y = 62 + step * number
        stroke = {"ink": INK, "good": GOOD, "bad": BAD}[colour]
        arrow = f'marker-end="url(#{colour})"'
        if kind == "-":
            parts.append(f'<circle cx="{server}" cy="{y - 4}" r="5" fill="{stroke}"/>')
            parts.append(text(server + 14, y, words, fill=stroke))
            continue
        start, end = (client, server) if kind[0] == ">" else (server, client)
        parts.append(line(start, y, end, y + 10, stroke, arrow))
        parts.append(text((client + server) / 2, y - 3, words, fill=stroke, at="middle"))
    words = ". ".join(step[1] for step in steps)
    return picture(640, height, title, words, parts)


def idle() -> str:
    """Draw a request that crosses the close of its kept-alive connection."""
    return exchange(
        "Lost on an idle connection",
        (
            (">", "request 1", "ink"),
            ("<", "200, connection stays open", "ink"),
            ("-", "SIGTERM: closes idle connections", "bad"),
            (">", "request 2, written at the same moment", "bad"),
            ("<", "reset: did it arrive? nobody knows", "bad"),
        ),
    )


def queue() -> str:
    """Draw a connection that the kernel has completed and the server has not accepted."""
    return exchange(
        "Lost in the accept queue",
        (
            (">", "handshake done: the kernel has the connection", "ink"),
            (">", "request", "bad"),
            ("-", "SIGTERM: closes its listener", "bad"),
            ("<", "reset: the queue was not empty", "bad"),
        ),
    )


def handshake() -> str:
    """Draw a handshake whose last packet finds no listener."""
    return exchange(
        "Lost in the middle of a handshake",
        (
            (">", "SYN", "ink"),
            ("<", "SYN, ACK", "ink"),
            ("-", "closes its listener, queue empty", "bad"),
            (">", "ACK, and the request with it", "bad"),
            ("<", "reset: nobody listens any more", "bad"),
        ),
    )


def killed() -> str:
    """Draw the requests that end with a process that did not end by itself."""
    return exchange(
        "Lost with the process",
        (
            (">", "request", "ink"),
            ("-", "SIGTERM: waits for every request", "ink"),
            ("<", "first half of the answer", "ink"),
            ("-", "one request never ends", "bad"),
            ("-", "SIGKILL: all of them end", "bad"),
            ("<", "a cut answer, or none", "bad"),
        ),
    )


ROOMS: Sequence[Sequence[tuple[str, str]]] = (
    (("_cli", "one module for each command"),),
    (("_check", "the load check"), ("_run", "graceful-asgi run and its workers")),
    (("_asgi", "the middleware: what passes through it"),),
    (("_servers", "what knows uvicorn and gunicorn"),),
    (("_extensions", "what lives as long as a server"),),
    (("_control", "the control socket"),),
    (("_core", "the drain: what is in flight, which phase, which deadline"),),
    (("_diagnostics", "what hangs, and the last resort"),),
    (("log  policy  phase  report  event_loop  types  errors  text", "the ground"),),
)
"""The rooms of the package from the top to the ground, each with what is in it."""


def rooms() -> str:
    """Draw the rooms of the package. Imports point down."""
    width, row, left = 760, 46, 20
    parts = []
    for number, line_of_rooms in enumerate(ROOMS):
        y = 20 + row * number
        each = (width - 2 * left - 12 * (len(line_of_rooms) - 1)) / len(line_of_rooms)
        for place, (name, what) in enumerate(line_of_rooms):
            x = left + place * (each + 12)
            ground = PHASES[3] if name.startswith("_") else PHASES[1]
            parts += [
                box(x, y, each, row - 14, ground),
                text(x + 12, y + 21, name, size=14),
                text(x + each - 12, y + 21, what, fill=FAINT, size=12, at="end"),
            ]
        if number:
            parts.append(line(width / 2, y - 14, width / 2, y - 2, INK, 'marker-end="url(#ink)"'))
    names = "; ".join(f"{name}: {what}" for row_of in ROOMS for name, what in row_of)
    return picture(
        width,
        20 + row * len(ROOMS),
        "The rooms of the package",
        f"From the top down. {names}.",
        parts,
    )


PICTURES = {
    "rooms.svg": rooms,
    "timeline.svg": timeline,
    "lost-idle.svg": idle,
    "lost-queue.svg": queue,
    "lost-handshake.svg": handshake,
    "lost-killed.svg": killed,
}
