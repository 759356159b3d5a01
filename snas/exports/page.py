"""One HTML page for screens, phones and paper, without scripts."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Mapping, Sequence

from snas.exports.cells import (
    MISSING,
    TEST,
    Column,
    best_accuracy,
    clean,
    columns,
    entries,
    is_best,
    kept_of,
    percent,
    title,
)
from snas.exports.rows import Group, Row


def _shade(percent: int) -> tuple[int, int, int]:
    """A colour between blue (0), pale (50) and orange (100), as red, green and blue."""
    ends = ((102, 170, 209), (247, 245, 228), (230, 158, 102))
    low, high = ends[:2] if percent <= 50 else ends[1:]
    share = (percent if percent <= 50 else percent - 50) / 50
    red, green, blue = (round(one + share * (other - one)) for one, other in zip(low, high, strict=True))
    return red, green, blue


SHADES = tuple(map(_shade, range(101)))
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#d9dee4;--page:#fff;--band:#f5f7f9;--bar:#2f6fb3}
@media (prefers-color-scheme:dark){
:root{--ink:#e6e9ec;--soft:#9aa5b1;--line:#353c44;--page:#15181c;--band:#1e2328;--bar:#6aa7e6}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:80rem;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .75rem}
h2{font-size:1.2rem;line-height:1.3;margin:2.5rem 0 0}
h3{font-size:1rem;margin:1.5rem 0 .25rem}
p{margin:.15rem 0 .75rem;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;margin:0;font-size:.9rem}
dt{color:var(--soft);max-width:12rem}
dd{margin:0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
thead th{vertical-align:bottom;border-bottom:2px solid var(--line);color:var(--soft);font-weight:600;line-height:1.25;
overflow-wrap:normal}
.n{text-align:right}
td.n{white-space:nowrap}
.t{min-width:5rem}
.top{font-weight:700}
.ranking tbody tr:nth-child(even){background:var(--band)}
details{border-bottom:1px solid var(--line);padding:.35rem .25rem;font-size:.9rem}
summary{cursor:pointer}
details dl{margin:.5rem 0}
.layers{max-width:44rem;margin-bottom:.5rem}
.layers td{padding:.15rem .5rem;border:0}
.track{display:block;width:100%;min-width:4rem;height:.7rem;margin-top:.35rem;background:var(--line)}
.track span{display:block;height:100%;background:var(--bar)}
.wide{width:45%}
@media screen and (max-width:60rem){
.ranking,.ranking tbody,.ranking tr,.ranking td{display:block}
.ranking thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.ranking tr{display:grid;grid-template-columns:1fr 1fr;gap:0 1rem;padding:.6rem .25rem;
border-bottom:1px solid var(--line)}
.ranking td,.ranking td.n{border:0;padding:.1rem .25rem;text-align:left;white-space:normal}
.ranking td::before{content:attr(data-label);display:block;color:var(--soft);font-size:.75rem;font-weight:400}
.ranking td.t:nth-child(2){font-weight:600;font-size:1rem}
}
@media screen and (min-width:36rem) and (max-width:60rem){.ranking tr{grid-template-columns:repeat(4,1fr)}}
@media screen and (max-width:36rem){
.layers,.layers tbody,.layers td{display:block}
.layers tr{display:grid;grid-template-columns:1fr 8.5rem;column-gap:1rem;padding:.3rem 0}
.layers td{padding:0 .25rem}
.layers .wide{grid-row:2;width:auto}
.layers td:nth-child(3){grid-area:2/2}
}
@page{size:landscape}
@media print{
:root{--ink:#000;--soft:#444;--line:#bbb;--page:#fff;--band:#fff;--bar:#555}
body{max-width:none;padding:0;font-size:9pt}
table{font-size:7.5pt}th,td{padding:2pt 3pt}tr{break-inside:avoid}h2,h3{break-after:avoid}
.track,.track span{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
""" + "".join(
    f".w{percent}{{width:{percent}%}}.ranking td.s{percent}{{background:rgb({red},{green},{blue});color:#000}}"
    for percent, (red, green, blue) in enumerate(SHADES)
)


def escape_html(text: str) -> str:
    """Plain text between tags or quotes."""
    return html.escape(clean(text), quote=True)


def html_text(groups: Sequence[Group], header: Mapping[str, str]) -> str:
    """The leaderboard as one page."""
    return html_page("Leaderboard", header, "".join(map(_html_group, groups)) or "<p>No results yet.</p>\n")


def html_page(name: str, header: Mapping[str, str], sections: str) -> str:
    """One page without scripts; its policy lets a browser load nothing and apply only the style sheet in it.

    Args:
        name: its title.
        header: names and values below the title.
        sections: the rest, safe already.
    """
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape_html(name)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape_html(name)}</h1>
{_html_pairs(header)}{sections}</body>
</html>
"""


def _html_pairs(pairs: Mapping[str, str]) -> str:
    """Names and their values as a list; nothing for none."""
    if not pairs:
        return ""
    items = "".join(f"<dt>{escape_html(key)}</dt><dd>{escape_html(value)}</dd>\n" for key, value in pairs.items())
    return f"<dl>\n{items}</dl>\n"


def _html_group(group: Group) -> str:
    """One ranking and, folded below it, its details."""
    best = best_accuracy(group)
    shown = columns(group)
    titles = "".join(f'<th scope="col" class="{"n" if column.number else "t"}">{column.title}</th>' for column in shown)
    rows = "".join(_html_row(row, shown, best=is_best(row, best)) for row in group.rows)
    measured = [row for row in group.rows if not row.cited]
    details = "".join(["<h3>Densities per layer</h3>\n", *map(_html_details, measured)]) if measured else ""
    return f"""<section>
<h2>{escape_html(title(group))}</h2>
<p>{escape_html(entries(group))}</p>
<table class="ranking">
<thead><tr>{titles}</tr></thead>
<tbody>
{rows}</tbody>
</table>
{details}</section>
"""


def _html_row(row: Row, shown: Sequence[Column], *, best: bool) -> str:
    """One line of a ranking; each cell carries its column's title for narrow screens."""
    cells = []
    for column in shown:
        style = ("n" if column.number else "t") + (" top" if best and column is TEST else "")
        cells.append(f'<td class="{style}" data-label="{column.title}">{escape_html(column.show(row))}</td>')
    return f"<tr>{''.join(cells)}</tr>\n"


def _html_details(row: Row) -> str:
    """Rules and densities of one row, folded."""
    rules = {
        "Id": str(row.id),
        "Strategy": row.strategy or MISSING,
        "Mask rule": row.mask_rule or MISSING,
        "Training rule": row.training_rule or MISSING,
    }
    layers = "".join(_html_layer(*layer) for layer in row.layers)
    number = len(row.layers)
    size = f"{percent(row.density)} of {row.total_weights:,} weights in {number} layer{'' if number == 1 else 's'}"
    return f"""<details>
<summary>{escape_html(f"{row.name}, {row.method}")}: {size}</summary>
{_html_pairs(rules)}<table class="layers"><tbody>
{layers}</tbody></table>
</details>
"""


def _html_layer(name: str, kept: int, total: int) -> str:
    """One layer's bar and numbers."""
    density = kept_of(kept, total)
    width = min(100, math.ceil(100 * (density or 0)))  # a layer that keeps anything shows a bar
    bar = f'<span class="track"><span class="w{width}"></span></span>'
    count = f'<td class="n">{percent(density)}</td><td class="n">{kept:,} of {total:,}</td>'
    return f'<tr><td>{escape_html(name)}</td><td class="wide">{bar}</td>{count}</tr>\n'
