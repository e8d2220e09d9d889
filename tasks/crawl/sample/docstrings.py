"""Docstrings and READMEs to HTML, prose as prose: what a documentation generator would make of them.

Understood are the conventions that installed packages use: NumPy and Google sections, Sphinx and Epytext fields,
reStructuredText lists, literal blocks and directives, doctests, and Markdown (by markdown-it).
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable

from markdown_it import MarkdownIt

NUMPY_RULE = re.compile(r"^\s*(-{3,}|={3,}|~{3,}|\^{3,}|\*{3,})\s*$")
GOOGLE_SECTION = re.compile(
    r"^(Args|Arguments|Params|Parameters|Keyword Args|Keyword Arguments|Returns?|Return value|Raises|Yields?|"
    r"Attributes|Examples?|Notes?|Warnings?|References|See Also|Usage|Todo|Side Effects)\s*:\s*$",
    re.IGNORECASE,
)
FIELD = re.compile(r"^[:@](\w+)(?:\s+([^:]*?))?:\s*(.*)$")
ITEM = re.compile(r"^(?:[-*+•]|\(?\d{1,2}[.)]|#\.)\s+(.*)$")
GOOGLE_ITEM = re.compile(
    r"^(\*{0,2}[\w.`]+(?:\s*,\s*\*{0,2}[\w.`]+)*)\s*(?:\(([^)]*(?:\([^)]*\)[^)]*)*)\))?\s*:\s*(.*)$"
)
DIRECTIVE = re.compile(r"^\.\.\s+([\w:-]+)::\s*(.*)$")
CODE_DIRECTIVES = {
    "code", "code-block", "sourcecode", "ipython", "plot", "math", "doctest", "testcode", "testsetup",
    "parsed-literal", "table", "csv-table", "list-table", "productionlist", "graphviz", "jupyter-execute",
}  # fmt: skip
SILENT_DIRECTIVES = {
    "image", "figure", "index", "currentmodule", "module", "autosummary", "toctree", "highlight", "contents",
    "only", "automodule", "autoclass", "autofunction", "py:currentmodule", "rubric", "automethod",
    "inheritance-diagram", "sectionauthor", "moduleauthor", "minigallery", "raw",
}  # fmt: skip
VERSION_DIRECTIVES = {"versionadded": "New in version", "versionchanged": "Changed in version",
                      "deprecated": "Deprecated since version"}  # fmt: skip
PARAMETER_TITLES = {
    "parameters", "other parameters", "returns", "return", "yields", "yield", "raises", "attributes",
    "receives", "warns", "methods", "args", "arguments", "params", "keyword args", "keyword arguments",
}  # fmt: skip

_INLINE: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"``(.+?)``"), r"<code>\1</code>"),
    (re.compile(r":[\w:+-]+:`([^`&]*?)\s*&lt;[^`]*?&gt;`"), r"\1"),
    (re.compile(r":[\w:+-]+:`[~!]?([^`]*)`"), lambda match: f"<code>{match[1].rsplit('.', 1)[-1] or match[1]}</code>"),
    (re.compile(r"`([^`&]+?)\s*&lt;(https?://[^`]*?)&gt;`__?"), r'<a href="\2">\1</a>'),
    (re.compile(r"\[([^\]]+)\]\((https?://[^)\s]+)\)"), r'<a href="\2">\1</a>'),
    (re.compile(r"`([^`]+)`_{0,2}"), r"<code>\1</code>"),
    (re.compile(r"\b[LCIBM]\{([^{}]*)\}"), r"<code>\1</code>"),
    (re.compile(r"\s?\[[#*\w]{1,12}\]_"), ""),
    (re.compile(r"\*\*(?=\S)([^*]+?)(?<=\S)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*]+?)(?<=\S)\*(?![\w*])"), r"<em>\1</em>"),
    (re.compile(r"(?<!\w)\|(\w+)\|"), r"\1"),
]  # fmt: skip


def inline(text: str) -> str:
    """Return one run of prose as HTML, with the inline marks of reStructuredText, Epytext and Markdown.

    >>> inline("Use ``x < 1`` or :class:`~a.b.Reader`.")
    'Use <code>x &lt; 1</code> or <code>Reader</code>.'
    """
    marked = html.escape(" ".join(text.split()), quote=False)
    for pattern, replacement in _INLINE:
        marked = pattern.sub(replacement, marked)
    return marked


def docstring_html(docstring: str, heading: int = 3) -> str:
    """Return a docstring as HTML; `heading` is the level of its own section titles."""
    text = docstring.expandtabs(4).strip("\n")
    if "```" in text:
        text = re.sub(r"^(\s*)```[^\n]*\n(.*?)^\s*```", _fence, text, flags=re.S | re.M)
    first, _, rest = text.partition("\n")
    lines = [first.strip(), *textwrap.dedent(rest).splitlines()] if rest else [first.strip()]
    return "\n".join(_blocks([line.rstrip() for line in lines], heading))


def markdown_html(text: str) -> str:
    """Return Markdown as HTML; raw HTML inside is kept out, as a package index does with scripts."""
    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def words(markup: str) -> int:
    """Count the words of prose in HTML, code blocks left out."""
    prose = re.sub(r"<pre>.*?</pre>", " ", markup, flags=re.S)
    return len(re.sub(r"<[^>]+>", " ", prose).split())


def _fence(match: re.Match[str]) -> str:
    body = textwrap.indent(textwrap.dedent(match[2]), match[1] + "    ")
    return f"{match[1]}::\n\n{body}\n"


def _pre(lines: list[str]) -> str:
    body = textwrap.dedent("\n".join(lines)).strip("\n")
    return f"<pre>{html.escape(body, quote=False)}</pre>" if body.strip() else ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _looks_like_code(lines: list[str]) -> bool:
    """Tell code, tables and formulas from an indented paragraph by their symbols."""
    text = "".join(lines)
    symbols = sum(text.count(symbol) for symbol in "=(){}[]<>|\\/_#;+*^$\"'")
    return symbols > 0.06 * max(1, len(text)) or any(line.lstrip().startswith(("$", "#", "def ", "import ", "from "))
                                                     and not line.endswith(".") for line in lines)  # fmt: skip


def _block_end(lines: list[str], start: int, indent: int) -> int:
    """Return the end of the lines from `start` that are blank or indented deeper than `indent`."""
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
        end += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return end


def _blocks(lines: list[str], heading: int, depth: int = 0) -> list[str]:
    """Return the blocks of some lines, each as one element."""
    made: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        text = line.strip()
        indent = _indent(line)
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if not text:
            at += 1
        elif text.startswith(">>>"):
            end = at
            while end < len(lines) and lines[end].strip():
                end += 1
            made.append(_pre(lines[at:end]))
            at = end
        elif (
            NUMPY_RULE.match(following)
            and len(following.strip()) >= min(len(text), 6)
            and len(text) < 80
            and indent <= 4
        ):
            end = at + 2
            while end < len(lines) and not (
                end + 1 < len(lines)
                and lines[end].strip()
                and NUMPY_RULE.match(lines[end + 1])
                and _indent(lines[end]) <= indent
            ):
                end += 1
            made.append(f"<h{heading}>{inline(text)}</h{heading}>")
            made.extend(_section(text, lines[at + 2 : end], heading, depth, numpy=True))
            at = end
        elif GOOGLE_SECTION.match(text) and (not following.strip() or _indent(following) > indent):
            end = _block_end(lines, at + 1, indent)
            if end > at + 1:
                made.append(f"<h{heading}>{inline(text.rstrip(':'))}</h{heading}>")
                body = textwrap.dedent("\n".join(lines[at + 1 : end])).split("\n")
                made.extend(_section(text.rstrip(": "), body, heading, depth, numpy=False))
            at = max(end, at + 1)
        elif NUMPY_RULE.match(line) or re.fullmatch(r"[=~+|-][=~+| -]{4,}", text):
            end = at
            while end < len(lines) and lines[end].strip():
                end += 1
            made.append(_pre(lines[at:end]) if end > at + 1 else "")
            at = end
        elif text.startswith(".."):
            end = _block_end(lines, at + 1, indent)
            made.extend(_directive(text, lines[at + 1 : end], heading, depth))
            at = max(end, at + 1)
        elif FIELD.match(text) and not text.startswith("::") and text[1:2].isalpha():
            at = _fields(lines, at, heading, depth, made)
        elif ITEM.match(text):
            at = _list(lines, at, made)
        else:
            at = _paragraph(lines, at, depth, made)
    return [block for block in made if block]


def _paragraph(lines: list[str], at: int, depth: int, made: list[str]) -> int:
    """Add the paragraph that starts at `at`, and the literal block after it; return where they end."""
    indent = _indent(lines[at])
    end = at
    while end < len(lines) and lines[end].strip() and (end == at or (not ITEM.match(lines[end].strip())
            and not lines[end].strip().startswith((">>>", ".. ", ":param", "@param"))
            and not (end > at + 1 and NUMPY_RULE.match(lines[end])))):  # fmt: skip
        end += 1
    block = lines[at:end]
    if indent >= 4 and _looks_like_code(block):
        made.append(_pre(block))
        return end
    text = " ".join(part.strip() for part in block)
    literal = text.endswith("::")
    if literal:
        text = text[:-1] if len(text) > 2 and text[-3] != " " else text[:-2]
    if len(block) > 1 and depth == 0 and all(_indent(part) > indent + 1 for part in block[1:]) and not literal:
        # A definition list of reStructuredText: a term, and its explanation indented under it.
        made.append(f"<dl><dt>{inline(block[0])}</dt><dd>{inline(' '.join(block[1:]))}</dd></dl>")
    elif text.strip(": "):
        made.append(f"<p>{inline(text)}</p>")
    if literal:
        stop = _block_end(lines, end, indent)
        made.append(_pre(lines[end:stop]))
        return max(stop, end)
    return end


def _list(lines: list[str], at: int, made: list[str]) -> int:
    """Add the list that starts at `at`, an item's own further lines joined to it; return where it ends."""
    indent = _indent(lines[at])
    items: list[str] = []
    while at < len(lines):
        match = ITEM.match(lines[at].strip())
        if not match or _indent(lines[at]) < indent:
            break
        parts = [match[1]]
        at += 1
        while (
            at < len(lines) and lines[at].strip() and not ITEM.match(lines[at].strip()) and _indent(lines[at]) > indent
        ):
            parts.append(lines[at].strip())
            at += 1
        items.append(" ".join(parts))
        ahead = at
        while ahead < len(lines) and not lines[ahead].strip():
            ahead += 1
        if ahead < len(lines) and ahead > at and ITEM.match(lines[ahead].strip()) and _indent(lines[ahead]) >= indent:
            at = ahead
    made.append("<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>")
    return at


def _fields(lines: list[str], at: int, heading: int, depth: int, made: list[str]) -> int:
    """Add the Sphinx or Epytext fields (`:param x: …`) that start at `at`; return where they end."""
    rows: list[tuple[str, str]] = []
    while at < len(lines) and (match := FIELD.match(lines[at].strip())):
        indent = _indent(lines[at])
        end = _block_end(lines, at + 1, indent)
        kind, name = match[1], (match[2] or "").strip()
        if kind not in ("type", "rtype", "vartype"):
            body = textwrap.dedent("\n".join(lines[at + 1 : end])).split("\n")
            text = " ".join(_blocks([match[3], *(line.rstrip() for line in body)], heading + 1, depth + 1))
            rows.append((name.split()[-1] if name else kind.capitalize(), text))
        at = end
        while at < len(lines) and not lines[at].strip():
            at += 1
    made.append(_definitions([(f"<code>{html.escape(name, quote=False)}</code>", text) for name, text in rows if text]))
    return at


def _definitions(rows: list[tuple[str, str]]) -> str:
    """Return a list whose items read as sentences: the name, then what it is."""
    items = []
    for term, text in rows:
        plain = re.fullmatch(r"<p>(.*?)</p>", text, flags=re.S)
        joined = plain[1] if plain and "<p>" not in plain[1] else text.replace("</p> <p>", " ").replace("</p><p>", " ")
        items.append(f"<li>{term}: {joined.removeprefix('<p>')}</li>" if joined else f"<li>{term}</li>")
    return "<ul>" + "".join(items) + "</ul>" if items else ""


def _section(title: str, lines: list[str], heading: int, depth: int, *, numpy: bool) -> list[str]:
    """Return a section's blocks: a definition list for parameters, ordinary blocks for the rest."""
    name = title.lower().strip(": ")
    if name not in PARAMETER_TITLES and name != "see also":
        return _blocks(lines, heading, depth + 1)
    body = textwrap.dedent("\n".join(lines)).split("\n")
    rows: list[tuple[str, str]] = []
    loose: list[str] = []
    at = 0
    while at < len(body):
        if not body[at].strip() or _indent(body[at]):
            if body[at].strip():
                loose.append(body[at].strip())
            at += 1
            continue
        end = _block_end(body, at + 1, 0)
        inner = textwrap.dedent("\n".join(body[at + 1 : end])).split("\n") if end > at + 1 else []
        head = body[at].strip()
        google = GOOGLE_ITEM.match(head)
        if (numpy and inner) or (numpy and name == "see also"):
            term, _, kind = head.partition(" : ")
            described = " ".join(_blocks([line.rstrip() for line in inner], heading + 1, depth + 1))
            named = inline(term) if "`" in term else f"<code>{html.escape(term.strip(' :'), quote=False)}</code>"
            rows.append((f"{named} ({inline(kind)})" if kind else named, described))
        elif google and (google[3] or inner):
            described = " ".join(_blocks([google[3], *[line.rstrip() for line in inner]], heading + 1, depth + 1))
            rows.append((f"<code>{html.escape(google[1].strip('`'), quote=False)}</code>", described))
        else:
            loose.extend([head, *map(str.strip, inner)])
        at = max(end, at + 1)
    return [_definitions(rows), *(_blocks(loose, heading, depth + 1) if loose else [])]


def _directive(text: str, body: list[str], heading: int, depth: int) -> list[str]:
    """Return what a reStructuredText directive, footnote or comment shows."""
    match = DIRECTIVE.match(text)
    inner = [line for line in textwrap.dedent("\n".join(body)).split("\n") if not re.match(r"^:[\w-]+:", line)]
    if match is None:
        note = re.match(r"^\.\. \[[^\]]+\]\s*(.*)$", text)
        return [f"<p>{inline(' '.join([note[1], *inner]))}</p>"] if note else []
    name, argument = match[1].lower(), match[2]
    if name in SILENT_DIRECTIVES:
        return []
    if name in CODE_DIRECTIVES:
        return [_pre(inner)]
    if name in VERSION_DIRECTIVES:
        version, _, rest = argument.partition(" ")
        return [f"<p>{VERSION_DIRECTIVES[name]} {inline(version)}. {inline(' '.join([rest, *inner]))}</p>"]
    return _blocks([argument, *inner], heading, depth + 1)
