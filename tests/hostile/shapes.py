"""Hostile inputs: short texts over and over, and forms that grow in other ways."""

from collections.abc import Callable

UNITS = (
    *"<>;,\"'\\ \n\t\r=&%/?:.*$-#@+|[]{}()a1\u00e9\u4e2d\x00\x01",
    "&#", "&#1", "&#x1", "&amp", "%2", "/.", "/..", "../", "//", "a.", "1.", "0x", "xn--", "http://",
    "http://h.example/ ",
    "a:", "a,b;", "a=b;", "a=b ", 'a="b" ', "a='b' ", "a=n, ", "*:noai,", "googlebot: noindex, ",
    "<a ", "<a href=", '<a href="', "<a href='", "<a href=/b>", "<a b ", "<a license ", "<a rel=license href=/b>",
    "<meta ", "<meta name=robots content=noai>", '<meta name="', "<meta charset ", "<!--", "-->", "<!--<", "<script>",
    "<style>", "</script", "</", "<div>", "</div>", "<p>", "<table><tr><td>", "<b><i>", "<![CDATA[", "<?xml ",
    "<li>x", "<p>x</p>",
    "<>", '<">', '<a>; rel="license", ', "<a>;\"", "[", "{", '[{"a":', '{"@graph":[', "charset=", "charset= ",
    "User-agent: a\n", "User-agent: a\nDisallow: /\n", "Disallow: /*a\n", "*a", "Content-Usage: train-ai=n\n",
    "Content-Usage: /a train-ai=n\n", "Content-Signal: ai-train=no\n", "License: http://h.example/l\n", "Agent: a\n",
    "User-agent a\nDisallow /\n", "Training: deny\n", "Noindex: /*a\n", "a;b=c, ", "a=(b ", 'a="', "gptbot: none ",
    "<!-->",
    "--!>", "<!--->", "<link type=application/rsl+xml>", "<script type=application/rsl+xml>", "(a; b/1) ",
    "Sitemap: /a\n", "<url><loc>http://h.example/a</loc></url>", "1\r\na\r\n", "a@", "a@b.", "1-", "1 ", "1 likes ",
    "::", "1:",
    "sk-", "eyJ", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "key=", "password = ", "://a:", "no wrap ",
    "\n\n", " \n", "- ",
    "(c) ", "copyright ", "A", "Aa ", "the ", "\u0e01", "\u3042", "e\u0301",
)  # fmt: skip


def repeated(unit: str) -> Callable[[int], str]:
    return lambda size: unit * (size // len(unit))


def numbered(form: str) -> Callable[[int], str]:
    """Return a shape of many parts of one form that differ: attributes, robots, parameters."""
    return lambda size: "".join(form.format(number) for number in range(size // (len(form) + 3)))


SHAPES: dict[str, Callable[[int], str]] = {
    **{repr(unit): repeated(unit) for unit in UNITS},
    "attributes": lambda size: "<p " + numbered("a{}=b ")(size) + ">text</p>",
    "attributes without a value": lambda size: "<meta " + numbered("a{} ")(size) + ">",
    "nested": lambda size: "<div>" * (size // 11) + "text" + "</div>" * (size // 11),
    "nested by turns": repeated("<x-y><div>"),
    "one long text": lambda size: "<p>" + "word " * (size // 5) + "</p>",
    "one long value": lambda size: '<meta name=robots content="' + "noai," * (size // 5) + '">',
    "one long reference": lambda size: '<meta name=robots content="&#' + "1" * size + ';">',
    "robots of one group": lambda size: numbered("User-agent: r{}\n")(size) + "Disallow: /\n",
    "robots of own groups": numbered("User-agent: r{}\nDisallow: /\n"),
    "robots of many groups": lambda size: (
        numbered("User-agent: r{}\n")(size // 2)
        + numbered("Disallow: /{}\n")(size // 4)
        + numbered("User-agent: r{}\nDisallow: /\n")(size // 4)
    ),
    "rules inside rules": lambda size: '{"a":[' * (size // 6),
    "places of one rule": lambda size: '{"location": [' + numbered('"/{}*",')(size) + '"/"], "tdm-reservation": 1}',
    "robots in one line": lambda size: "User-agent: " + numbered("r{},")(size) + "\nDisallow: /\n",
    "preferences of many paths": lambda size: "User-agent: *\n" + numbered("Content-Usage: /{} train-ai=n\n")(size),
    "locations": lambda size: (
        "[" + numbered('{{"location": "/{}*"}}, ')(size) + '{"location": "/b", "tdm-reservation": 1}]'
    ),
    "targets": numbered('<https://creativecommons.org/{}>; rel="license", '),
    "links": numbered("<a href=/{}>x</a>"),
    "links with a query": numbered("<a href=?a={}>x</a>"),
    "parameters": lambda size: "?" + numbered("a{}=b&")(size),
    "hosts": numbered("<a href=http://h{}.h.example/>x</a>"),
    "words": numbered("word{} "),
    "lines": numbered("line {} of the text\n"),
}
