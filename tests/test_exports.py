"""Exports: worked cases by hand, and a corpus of hostile names that must stay text in every format."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snas.errors import InputError, SnasError
from snas.exports import FORMATS, Group, Row, clean, export, write_export

ROW = Row(
    rank=1,
    id=7,
    name="first",
    kind="searched",
    method="random",
    space="lenet-300-100",
    dataset="mnist",
    kept_weights=13310,
    total_weights=266200,
    density=0.05,
    compression=20.0,
    test_accuracy=0.9742,
    test_std=0.0031,
    validation_accuracy=0.98,
    validation_std=None,
    seeds=3,
    flops=26620,
    epochs=8,
    epochs_spent=96,
    seconds=61.5,
    strategy="bayes",
    mask_rule="random",
    training_rule="sgd 0.1 cosine 64x8",
    layers=(("fc1", 1, 400), ("fc2", 3, 4), ("fc3", 0, 5)),
)
DENSE = replace(
    ROW,
    rank=None,
    id=8,
    name="second",
    kind="baseline",
    method="dense",
    test_accuracy=None,
    test_std=None,
    validation_accuracy=0.5,
    seeds=1,
    strategy="",
    layers=(("fc1", 400, 400),),
)
GROUP = Group("lenet-300-100", "mnist", 8, "One split.", (ROW, DENSE))
CITED = replace(
    ROW,
    rank=None,
    id=9,
    name="published",
    kind="cited",
    method="snip",
    kept_weights=0,
    total_weights=0,
    test_accuracy=0.984,
    test_std=None,
    validation_accuracy=None,
    seeds=0,
    flops=0,
    epochs=0,
    epochs_spent=0,
    seconds=0.0,
    strategy="",
    mask_rule="",
    training_rule="",
    source="Lee, Table 3.1",
    layers=(),
)
TITLES = [
    *("Rank", "Name", "Kind", "Method", "Kept weights", "Density", "Compression"),
    *("Test accuracy %", "Validation accuracy %", "FLOPs", "Epochs spent", "Seconds"),
]
CELLS = [
    *("1", "first", "searched", "random", "13,310", "5.00%", "20.0\u00d7"),
    *("97.42 \u00b1 0.31 (n=3)", "98.00 (n=3)", "26.6k", "96", "62"),
]


# ---- worked by hand ----------------------------------------------------------------------------------------------


def test_csv_holds_every_field():
    lines = export([GROUP], "csv").split("\r\n")
    assert lines[0] == (
        "rank,id,name,kind,method,space,dataset,kept_weights,total_weights,density,compression,test_accuracy,test_std,"
        "validation_accuracy,validation_std,seeds,failed,superseded,flops,epochs,epochs_spent,seconds,strategy,mask_rule,training_rule,"
        "source,group,layers"
    )
    assert lines[1] == (
        "1,7,first,searched,random,lenet-300-100,mnist,13310,266200,0.05,20.0,0.9742,0.0031,0.98,,3,0,0,26620,8,96,61.5,"
        'bayes,random,sgd 0.1 cosine 64x8,,One split.,"{""fc1"": 0.0025, ""fc2"": 0.75, ""fc3"": 0.0}"'
    )
    assert lines[2].startswith(",8,second,baseline,dense,")
    assert lines[3:] == [""]


def test_json_holds_every_field():
    document = json.loads(export([GROUP], "json", header={"registry": "snas.db"}))
    assert document["header"] == {"registry": "snas.db"}
    (group,) = document["groups"]
    assert [group[key] for key in ("space", "dataset", "epochs", "subtitle")] == [
        "lenet-300-100",
        "mnist",
        8,
        "One split.",
    ]
    row = group["rows"][0]
    assert row["layers"] == {
        "fc1": {"kept": 1, "total": 400},
        "fc2": {"kept": 3, "total": 4},
        "fc3": {"kept": 0, "total": 5},
    }
    assert {**row, "layers": ROW.layers} == vars(ROW)
    assert group["rows"][1]["rank"] is None


def test_markdown_is_a_table_and_a_list():
    assert export([GROUP], "md", header={"registry": "snas.db"}).splitlines() == [
        "# Leaderboard",
        "",
        "| Source | |",
        "| :-- | :-- |",
        r"| registry | snas\.db |",
        "",
        "## lenet-300-100 on mnist, 8 epochs",
        "",
        "2 entries. One split.",
        "",
        f"| {' | '.join(TITLES)} |",
        "| --: | :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
        f"| {' | '.join(CELLS)} |",
        "| - | second | baseline | dense | 13,310 | 5.00% | 20.0\u00d7 | - | 50.00 (n=1) | 26.6k | 96 | 62 |",
        "",
        "### Densities per layer",
        "",
        "- id 7, first, random (strategy bayes, mask random, training sgd 0.1 cosine 64x8): "
        "`fc1` 0.25%, `fc2` 75.00%, `fc3` 0.00%",
        "- id 8, second, dense (strategy -, mask random, training sgd 0.1 cosine 64x8): `fc1` 100.00%",
    ]


def test_latex_is_a_tabular_with_the_best_in_bold():
    lines = export([GROUP], "latex", header={"registry": "my_snas.db"}).splitlines()
    assert r"\usepackage{booktabs}" in lines[0]
    assert lines[2:] == [
        r"% registry: my\_snas.db",
        "",
        "% Caption: lenet-300-100 on mnist, 8 epochs. 2 entries. One split.",
        r"\begin{tabular}{rlllrrrrrrrr}",
        r"\toprule",
        " & ".join(TITLES).replace("%", r"\%") + r" \\",
        r"\midrule",
        r"1 & first & searched & random & 13,310 & 5.00\% & 20.0$\times$ & \textbf{97.42} $\pm$ 0.31 (n=3)"
        r" & 98.00 (n=3) & 26.6k & 96 & 62 \\",
        r"- & second & baseline & dense & 13,310 & 5.00\% & 20.0$\times$ & - & 50.00 (n=1) & 26.6k & 96 & 62 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_html_shows_the_same_table():
    page = Page(export([GROUP], "html", header={"registry": "snas.db"}))
    assert page.texts("dt")[0] == "registry"
    assert page.texts("dd")[0] == "snas.db"
    assert page.texts("h2") == ["lenet-300-100 on mnist, 8 epochs"]
    assert page.texts("p") == ["2 entries. One split."]
    assert page.texts("th") == TITLES
    assert page.texts("td")[:12] == CELLS
    assert page.texts("summary")[1] == "second, dense: 5.00% of 266,200 weights in 1 layer"
    assert page.texts("dd")[1:5] == ["7", "bayes", "random", "sgd 0.1 cosine 64x8"]
    assert "fc2" in page.texts("td")
    assert "3 of 4" in page.texts("td")


def test_html_bars_show_whole_percents_and_never_hide_a_kept_weight():
    page = Page(export([GROUP], "html"))
    widths = [
        attributes["class"] for tag, attributes in page.tags if re.fullmatch(r"w\d+", attributes.get("class") or "")
    ]
    assert widths == ["w1", "w75", "w0", "w100"]
    assert ".w75{width:75%}" in page.style


def test_html_allows_nothing_but_its_own_style():
    page = Page(export([GROUP], "html"))
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not any("style" in attributes for _, attributes in page.tags)
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_best_is_marked_in_each_group_also_when_shared():
    worse = replace(ROW, rank=2, test_accuracy=0.5)
    groups = [replace(GROUP, rows=(ROW, ROW, worse)), replace(GROUP, rows=(worse,))]
    assert export(groups, "latex").count(r"\textbf{97.42}") == 2
    assert export(groups, "latex").count(r"\textbf{50.00}") == 1
    assert export(groups, "html").count('class="n top"') == 3


def test_ranks_restart_and_groups_stay_apart():
    other = Group("mlp", "digits", 1, "", (replace(ROW, space="mlp", dataset="digits", epochs=1),))
    table = list(csv.DictReader(io.StringIO(export([GROUP, other], "csv"))))
    assert [(line["rank"], line["space"], line["epochs"]) for line in table] == [
        ("1", "lenet-300-100", "8"),
        ("", "lenet-300-100", "8"),
        ("1", "mlp", "1"),
    ]
    assert "## mlp on digits, 1 epoch\n\n1 entry.\n" in export([GROUP, other], "md")
    assert export([GROUP, other], "html").count('<table class="ranking">') == 2
    assert export([GROUP, other], "latex").count(r"\begin{tabular}") == 2


def test_numbers_are_never_touched_and_nan_is_missing():
    odd = replace(ROW, seconds=-1.5, test_accuracy=math.nan, compression=math.inf, density=1 / 3, test_std=1e-7)
    (line,) = csv.DictReader(io.StringIO(export([replace(GROUP, rows=(odd,))], "csv")))
    shown = [line[name] for name in ("seconds", "test_accuracy", "compression", "density", "test_std")]
    assert shown == ["-1.5", "", "", "0.3333333333333333", "1e-07"]
    (row,) = strict_json(export([replace(GROUP, rows=(odd,))], "json"))["groups"][0]["rows"]
    assert row["test_accuracy"] is None
    assert row["compression"] is None
    assert "| 33.33% | - | - |" in export([replace(GROUP, rows=(odd,))], "md")
    assert "textbf" not in export([replace(GROUP, rows=(odd,))], "latex")


def test_a_published_figure_has_its_source_and_no_number_that_was_not_told():
    groups = [replace(GROUP, rows=(ROW, CITED))]
    line = list(csv.DictReader(io.StringIO(export(groups, "csv"))))[1]
    unknown = ("kept_weights", "total_weights", "seeds", "flops", "epochs", "epochs_spent", "seconds", "rank")
    assert [line[name] for name in unknown] == [""] * 8
    assert [line[name] for name in ("kind", "density", "test_accuracy", "failed", "source")] == [
        *("cited", "0.05", "0.984", "0", "Lee, Table 3.1"),
    ]
    row = strict_json(export(groups, "json"))["groups"][0]["rows"][1]
    assert [row[name] for name in unknown] == [None] * 8
    assert (row["source"], row["layers"], row["density"]) == ("Lee, Table 3.1", {}, 0.05)
    cells = ["-", "published", "cited", "snip", "-", "5.00%", "20.0\u00d7", "98.40", *["-"] * 4, "Lee, Table 3.1"]
    assert split_markdown(markdown_rows(export(groups, "md"))[-1]) == cells
    page = Page(export(groups, "html"))
    assert page.texts("td")[13:26] == cells
    assert page.texts("th") == [*TITLES, "Source"]
    latex = export(groups, "latex")
    assert r"\begin{tabular}{rlllrrrrrrrrp{60mm}}" in latex
    assert " & 98.40 & - & - & - & - & Lee, Table 3.1 " in latex


def test_only_a_ranked_published_figure_can_be_the_best():
    assert CITED.test_accuracy > ROW.test_accuracy
    aside, among = ([replace(GROUP, rows=(ROW, row))] for row in (CITED, replace(CITED, rank=1)))
    for groups, best in ((aside, "97.42"), (among, "98.40")):
        assert re.findall(r"textbf\{([0-9.]+)\}", export(groups, "latex")) == [best]
        assert export(groups, "html").count('class="n top"') == 1
    alone = [Group("lenet-300-100", "mnist", 0, "", (CITED,))]
    assert "textbf" not in export(alone, "latex")


def test_a_group_of_published_figures_alone_has_no_length_and_no_densities_of_layers():
    alone = [Group("lenet-300-100", "mnist", 0, "", (CITED,))]
    for format in ("md", "html", "latex"):
        text = export(alone, format)
        assert "lenet-300-100 on mnist, published figures" in text
        assert "Densities per layer" not in text
    told = replace(CITED, kept_weights=13310, seeds=20, test_std=0.001)
    cells = split_markdown(markdown_rows(export([replace(alone[0], rows=(told,))], "md"))[-1])
    assert (cells[4], cells[7]) == ("13,310", "98.40 \u00b1 0.10 (n=20)")


@pytest.mark.parametrize(
    ("density", "flops", "shown"),
    [(0.0123456, 999, "1.23%"), (0.00012, 1000, "0.012%"), (1.0, 1_250_000, "100.00%"), (0.001, 3 * 10**9, "0.10%")],
)
def test_tiny_and_large_numbers_stay_readable(density, flops, shown):
    cells = split_markdown(
        markdown_rows(export([replace(GROUP, rows=(replace(ROW, density=density, flops=flops),))], "md"))[2]
    )
    assert cells[5] == shown
    assert cells[9] == {999: "999", 1000: "1.0k", 1_250_000: "1.2M", 3 * 10**9: "3.0G"}[flops]


@pytest.mark.parametrize("format", FORMATS)
def test_no_groups_give_a_valid_file(format):
    text = export([], format)
    if format == "csv":
        assert text.count("\r\n") == 1
    elif format == "json":
        assert json.loads(text) == {"header": {}, "groups": []}
    else:
        assert "No results yet." in text


def test_unknown_format_lists_the_choices():
    with pytest.raises(InputError, match=r"'xlsx'; choices: csv, json, md, html, latex"):
        export([], "xlsx")


# ---- hostile text ------------------------------------------------------------------------------------------------

# fmt: off
PAYLOADS = [
    # spreadsheets
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\tplain", "   =1+1", "\u00a0=1", "\u200b=1", "'=1",
    "\x00=1",
    "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff201", "\ufeff=1", "a;=1+1;b", 'a;"=1+1', '";=1', '"=1+1', "a,=1+1",
    'a",=1,"',
    "=cmd|' /C calc'!A0", '=HYPERLINK("http://evil.test","x")', "@evil;@b", "-2+3+cmd|' /C x'!A0",
    # HTML
    "<script>alert(1)</script>", "</td><td>", "</style><b>", "<img src=x onerror=alert(1)>", '" onclick="alert(1)',
    "' x='",
    "&lt;b&gt;", "&#60;b&#62;", "&amp", "<!--", "-->", "]]>", "<a href=javascript:alert(1)>x</a>",
    "javascript:alert(1)",
    # LaTeX
    r"\input{/etc/passwd}", r"\write18{id}", r"\end{tabular}", "$x$", "a & b", "#1", "100%", "a~b", "^^5cinput",
    "_x", "{", "}",
    "\\", "\\\\", "?`!`", "--", "---", ",,", "<<", ">>", "''", '"a"', "\u00b1 \u00d7 \u2013",
    # Markdown
    r"\|", "a|b", "| a | b |", "[x](http://evil.test)", "![x](http://evil.test)", "<http://evil.test>", "[x]: y",
    "> quote",
    "http://evil.test", "www.evil.test", "www.1", "bob@evil.test", "//evil.test", "mailto:a@b.test", "evil.test",
    ":smile:",
    "`code`", "``", "`", "$`x`$", "*a* **b** __c__ ~~d~~", "# head", "- item", "1. item", "===", "| --- |", "[^1]",
    "{{ x }}",
    # control and direction, odd characters, odd lengths
    "a\nb", "a\r\nb", "a\x85b", "a\u2028b", "a\vb", "nul\x00", "bell\x07", "\x1b[31mred", "\x9b31m", "\u202eabc\u202c",
    "\u2066a\u2069", "\u200d", "\u05d0\u05d1", "\u65e5\u672c", "\U0001f600", "\ud800", "\udfff\ud800", "\uffff",
    "\ufffe",
    "e\u0301", "", " ", "\n", "-", "../../etc/passwd", "__proto__", "n" * 10_000, "=" * 10_000, "<" * 10_000,
]
# fmt: on
FRAGMENTS = sorted({character for payload in PAYLOADS for character in payload} | {p for p in PAYLOADS if len(p) < 50})
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.characters(), max_size=12).map("".join)
BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"


def visible(text: str) -> str:
    """What `clean` promises, told character by character from the Unicode tables."""
    shown = []
    for character in text.replace("\r\n", "\n"):
        hidden = unicodedata.bidirectional(character) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        if character in BREAKS:
            shown.append(" ")
        elif "\ud800" <= character <= "\udfff":
            shown.append("\ufffd")
        elif not (
            unicodedata.category(character) == "Cc"
            or hidden
            or character in "\u061c\u200e\u200f\ufff9\ufffa\ufffb\ufffe\uffff"
        ):
            shown.append(character)
    return "".join(shown)


def whole(text: str) -> str:
    """The text with what UTF-8 cannot hold replaced."""
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


def hostile(text: str) -> tuple[list[Group], dict[str, str]]:
    """Groups and a header with `text` in every place that takes one."""
    names = ("name", "kind", "method", "space", "dataset", "strategy", "mask_rule", "training_rule")
    row = replace(ROW, **dict.fromkeys(names, text), source=text or "-", layers=((text, 1, 4),))
    cited = replace(CITED, method=text, space=text, dataset=text, source=text or "-")
    return [Group(text, text, 8, text, (row, row, cited))], {text: text}


def strict_json(text: str):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def starts_formula(cell: str) -> bool:
    bare = cell.lstrip(' \u00a0\u3000\u00ad\u200b\u200c\u200d\u2060\ufeff"')
    return cell[:1] in ("\t", "\r", "\n") or unicodedata.normalize("NFKC", bare[:1])[:1] in ("=", "+", "-", "@")


def check_csv(text: str) -> None:
    groups, header = hostile(text)
    out = export(groups, "csv", header=header)
    assert out.count("\n") == 4  # no cell breaks a line
    titles, *lines = csv.reader(io.StringIO(out, newline=""), strict=True)
    assert [len(line) for line in lines] == [28, 28, 28]
    for title, cell in zip(titles, lines[0], strict=True):
        pieces = [cell] if title == "layers" else [cell, *cell.split(";")]
        assert not any(map(starts_formula, pieces)), (title, cell)
        if title in ("name", "kind", "method", "space", "dataset", "strategy", "mask_rule", "training_rule", "group"):
            assert cell.replace("'", "") == visible(text).replace("'", "")
            assert len(cell) <= len(visible(text)) + 1 + text.count(";")
        if title == "layers":
            assert json.loads(cell) == {whole(text): 0.25}
            assert ";" not in cell
    for line in lines:
        source = line[titles.index("source")]
        assert source.replace("'", "") == visible(text or "-").replace("'", "")
        assert not any(map(starts_formula, source.split(";")))


def check_json(text: str) -> None:
    groups, header = hostile(text)
    out = export(groups, "json", header=header)
    assert visible(out.replace("\n", "")) == out.replace("\n", "")
    document = strict_json(out)
    assert document["header"] == {whole(text): whole(text)}
    assert document["groups"][0]["rows"][2]["source"] == whole(text or "-")
    row = document["groups"][0]["rows"][1]
    assert {document["groups"][0]["subtitle"], row["name"], row["training_rule"], *row["layers"]} == {whole(text)}


class Page(HTMLParser):
    """Tags with their attributes, and the text inside each tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.others: list[str] = []
        self.open: list[list[str]] = []
        self.closed: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    @property
    def style(self) -> str:
        return self.texts("style")[0]

    def texts(self, tag: str) -> list[str]:
        return [text for name, text in self.closed if name == tag]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append([tag, ""])

    def handle_endtag(self, tag):
        name, text = self.open.pop()
        assert name == tag
        self.closed.append((tag, text))

    def handle_data(self, data):
        if self.open:
            self.open[-1][1] += data

    def handle_comment(self, data):
        self.others.append(data)

    def handle_pi(self, data):
        self.others.append(data)

    def unknown_decl(self, data):
        self.others.append(data)


def html_page(text: str) -> Page:
    groups, header = hostile(text)
    return Page(export(groups, "html", header=header))


PLAIN_TAGS = html_page("x").tags


def check_html(text: str) -> None:
    page = html_page(text)
    assert page.tags == PLAIN_TAGS  # same tags, same attributes, same order
    assert page.others == []
    cells = page.texts("td")
    assert [cells[1], cells[2], cells[3], cells[14]] == [visible(text)] * 4
    assert [cells[12], cells[25], cells[38]] == [visible(text or "-")] * 3  # the sources
    assert cells[39] == visible(text)  # the layer
    assert page.texts("dd")[0] == page.texts("dt")[0] == visible(text)


def markdown_rows(text: str) -> list[str]:
    """Lines of the last table."""
    lines = text.splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("| Rank"))
    return [line for line in lines[last:] if line.startswith("|")]


def split_markdown(line: str) -> list[str]:
    """Cells of one row: split where a bar is not escaped, then take the escapes away."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    cells, cell, characters = [], "", iter(line[2:-2])
    for character in characters:
        if character == "\\":
            cell += next(characters)
        elif character == "|":
            cells.append(cell.strip())
            cell = ""
        else:
            assert character not in "`*_[]<>&#~$", (character, line)
            cell += character
    return [*cells, cell.strip()]


def check_markdown(text: str) -> None:
    groups, header = hostile(text)
    out = export(groups, "md", header=header)
    assert len(out.split("\n")) == PLAIN_MARKDOWN.count("\n") + 1
    assert visible(out.replace("\n", "")) == out.replace("\n", "")
    rows = markdown_rows(out)
    assert len(rows) == 5
    for number, line in enumerate(rows[2:]):
        cells = split_markdown(line)
        assert len(cells) == 13
        assert cells[12].replace("@\u2060", "@") == visible(text or "-").strip()
        named = [cells[3]] * 3 if number == 2 else cells[1:4]  # the last one is cited
        assert [cell.replace("@\u2060", "@") for cell in named] == [visible(text).strip()] * 3
        assert not re.search(r"(?<!\\)(://|//|www\.)|[^\W\d]:\S|@[\w.]|[^\W\d]\.\w", line)


def markdown_kinds(text: str) -> list[str]:
    """Kinds of everything in a document that is not text, as another parser sees it."""
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    parser = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    blocks = parser.parse(text)
    return [
        kind.type
        for block in blocks
        for kind in [block, *(block.children or [])]
        if kind.type not in ("text", "text_special")
    ]


PLAIN_MARKDOWN = export(hostile("x")[0], "md", header={"x": "x"})


def check_markdown_parsed(text: str) -> None:
    groups, header = hostile(text)
    assert markdown_kinds(export(groups, "md", header=header)) == markdown_kinds(PLAIN_MARKDOWN)


COMMANDS = {
    "quote": '"',
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotesingle": "'",
    "textasciigrave": "`",
}


def read_latex(line: str) -> list[str]:
    """Cells of one row as LaTeX would print them; fails at anything that is not plain text."""
    line = line.replace(r"\symbol{34}", r"\quote{}").replace(r"$\pm$", "\u00b1").replace(r"$\times$", "\u00d7")
    line = re.sub(r"\\textbf\{([0-9.]+)\}", r"\1", line)
    assert line.endswith(r" \\")
    cells, position, line = [""], 0, line[:-3]
    while position < len(line):
        character = line[position]
        if character == "\\":
            command = re.compile(r"\\([a-z]+)\{\}|\\([{}$&#%_])").match(line, position)
            assert command, line[position:]
            cells[-1] += COMMANDS[command[1]] if command[1] else command[2]
            position = command.end()
            continue
        assert character not in "$#%_~^<>|\"'`", line[position:]
        if character == "&":
            cells.append("")
        elif line.startswith(("{[}", "{]}"), position):
            cells[-1] += line[position + 1]
            position += 2
        elif line.startswith("{}", position):  # parts two signs
            position += 1
        else:
            assert character not in "{}[]", line[position:]
            cells[-1] += character
        position += 1
    return cells


def check_latex(text: str) -> None:
    groups, header = hostile(text)
    lines = export(groups, "latex", header=header).split("\n")
    plain = export(hostile("x")[0], "latex", header={"x": "x"}).split("\n")
    assert len(lines) == len(plain)
    for line, expected in zip(lines, plain, strict=True):
        if expected.startswith("%"):
            assert line.startswith("%")  # stays a comment
        elif not expected.startswith(("1 &", "- &")):
            assert line == expected
        else:
            cells = read_latex(line)
            assert len(cells) == 13
            assert cells[12][1:] == visible(text or "-")
            named = [cells[3]] * 3 if expected.startswith("-") else cells[1:4]
            assert [cell[1:-1] for cell in named] == [visible(text)] * 3
            assert not re.search(r"--|,,", line)


CHECKS: list[Callable[[str], None]] = [
    check_csv,
    check_json,
    check_html,
    check_markdown,
    check_markdown_parsed,
    check_latex,
]


@pytest.mark.parametrize("check", CHECKS)
def test_payloads_stay_text(check):
    for payload in PAYLOADS:
        check(payload)


@pytest.mark.parametrize("check", CHECKS)
def test_any_text_stays_text(check):
    settings(max_examples=100, deadline=None)(given(TEXTS)(check))()


@given(TEXTS)
def test_clean_keeps_all_that_is_visible(text):
    assert clean(text) == visible(text)
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("  @x", "'  @x"),
        ("\t=1", "' =1"),
        ("\tplain", "' plain"),
        ("\uff1d1", "'\uff1d1"),
        ("'=1", "''=1"),
        ("a;-1;b", "a;'-1;b"),
        ("a-b=c", "a-b=c"),
        ("it's", "it's"),
        ("a\x00\nb", "a b"),
    ],
)
def test_csv_guards_with_an_apostrophe(text, cell):
    (line,) = csv.DictReader(io.StringIO(export([replace(GROUP, rows=(replace(ROW, name=text),))], "csv")))
    assert line["name"] == cell


def test_csv_keeps_apart_layers_whose_names_differ_in_what_is_hidden():
    row = replace(ROW, layers=(("a", 1, 2), ("a\x00", 1, 4), ("none", 0, 0)))
    (line,) = csv.DictReader(io.StringIO(export([replace(GROUP, rows=(row,))], "csv")))
    assert json.loads(line["layers"]) == {"a": 0.5, "a\x00": 0.25, "none": None}


@pytest.mark.parametrize(
    ("name", "code"), [("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("`", "`` ` ``"), ("", "`-`"), ("x|y", "`x|y`")]
)
def test_markdown_code_outgrows_the_backticks_inside(name, code):
    text = export([replace(GROUP, rows=(replace(ROW, layers=((name, 1, 4),)),))], "md")
    assert f": {code} 25.00%\n" in text


# ---- files -------------------------------------------------------------------------------------------------------


def test_write_replaces_a_file_to_the_byte(tmp_path):
    path = tmp_path / "board.csv"
    path.write_text("old")
    write_export("a\r\n\u00e9\n", path)
    assert path.read_bytes() == b"a\r\n\xc3\xa9\n"
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["board.csv", "plain"]


@pytest.mark.parametrize(
    "name", ["absent/board.csv", "folder", "file/board.csv", "link", "pipe", "n" * 300, "a\0b", "."]
)
def test_write_refuses_what_is_not_a_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="cannot write") as caught:
        write_export("text", tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "kept"


def test_write_that_fails_half_way_leaves_the_older_file(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "board.md"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnasError, match="No space left on device; nothing was changed") as caught:
        write_export("new", path)
    assert not isinstance(caught.value, InputError)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_takes_a_name_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_export("text", Path("board.html"))
    assert (tmp_path / "board.html").read_text() == "text"
