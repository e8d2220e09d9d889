"""The encodings of the web, as browsers read them: labels, tables and errors of the WHATWG Encoding Standard.

Python has codecs of the same names that read other tables: its shift_jis knows no ①, its euc_kr a fifth of the
syllables, its windows-1251 refuses a byte that browsers let pass. Where one of its codecs reads as the standard does,
that codec is used, and what it reads otherwise stands here as a difference. A byte that has no meaning is U+FFFD, and
where two of them have none together, one; an ASCII byte behind the first byte of a pair that has none stays.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from webencodings.labels import LABELS

REPLACEMENT = "\ufffd"
MOST_LABEL_CHARACTERS = 40  # the longest of the standard's has 19
_WHITESPACE = "\t\n\f\r "
_UTF = {"utf-8": "utf-8", "utf-16le": "utf-16-le", "utf-16be": "utf-16-be"}
# Python's names of tables of 256 characters, where it does not know the standard's.
_SINGLE = {"ibm866": "cp866", "iso-8859-8-i": "iso-8859-8", "macintosh": "mac_roman", "x-mac-cyrillic": "mac_cyrillic",
           "windows-874": "cp874"}  # fmt: skip
_SINGLE_DIFFERS = {"koi8-u": {0xAE: "ў", 0xBE: "Ў"}, "windows-1255": {0xCA: "\u05ba"}}
# Of Big5, what neither big5hkscs (of 2004) nor cp950 has: the additions of HKSCS-2008, which stand in a row, and pairs
# that were given up for another one of the same character.
_HKSCS_2008 = (
    "㡵𡵓𣚞𦀡㻬𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆"
    "㓦珄𥶹瓆鿇垳䤯呌䄱𣚎堘穲𧭥讏䚮𦺈䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋"
)
_HKSCS_2008_FIRST = 0x87, 0x7A
_BIG5_AGAIN = (
    "8E69箸8E6F簆8E7E糎8EAB緒8EB4縝8ECD者8ED0耨8F57菁8F69蒨8F6E萏8FCB覦8FCC覩8FFE起906D都907A銹90DC靜90F1響91BF鼖"
    "9244蔃92AF兙92B0兛92B1兝92B2兞92C8鍮92D1瑹9447浧94CA禛95D9邗9644靝96ED瀞96FC嬨9B76爁9B78矗9B7B纇9BC6駖9BDE釔"
    "9BEC惞9BF6澶9C42輶9C53侻9C62營9C68鄄9C6B鷰9C77菏9CBC尐9CBD秣9CD0婧9D57輋9D5A筑9DC4拐9EA9恢9EEF痹9EFD汊9F60鬮"
    "9F66鼗9FCB僭9FD8弌A063蠏A077拎A0D5瑨A0DF煢A0E4牐C6CF廴C6D3无C6D5癶C6D7隶C6DE〃C6DF仝FA5F倩FA66偽FABD包FAC5卄"
    "FAD5卿FB48嘅FBB8婷FBF3幵FBF9廐FC4F彘FC6C悤FCB9撐FCE2晴FCF1杞FDB7沜FDB8渝FDBB港FDF1煮FE52猪FE6F瑜FEAA瓩FEDD砉"
)
# As cp950 reads them: the standard's own signs, not those of HKSCS.
_BIG5_AS_CP950 = "A145 A14E A1C2 A1E3 A1F2 A1F3 A241 A242 A244 A246 A247 A3E1"
# Python's gb18030 is of the year 2000; these pairs have characters of their own since, one of them lost its own.
_GB18030 = (
    "A3A0\u3000A6D9︐A6DA︒A6DB︑A6DC︓A6DD︔A6DE︕A6DF︖A6EC︗A6ED︘A6F3︙"
    "A8BCḿFE59龴FE61龵FE66龶FE67龷FE6D龸FE7E龹FE90龺FEA0龻"
)
_GB18030_2000 = "8135F437"
_ESCAPE = re.compile(rb"\x1b(?:\(([BJI])|\$([@B]))")
_ISO_2022_TOKEN = re.compile(rb"[\x21-\x7e][^\x1b]|.", re.DOTALL)
_ISO_2022_PAIR = re.compile(rb"[\x21-\x7e]{2}")
_NO_ASCII = re.compile(r"[\x0e\x0f\x1b\x80-\xff]")


def encoding_of(label: str) -> str | None:
    """Return the standard's name of the encoding that a label names, in lower case; None where it names none.

    >>> encoding_of(" Latin1"), encoding_of("sjis"), encoding_of("ks_c_5601-1987"), encoding_of("utf-7")
    ('windows-1252', 'shift_jis', 'euc-kr', None)
    """
    if len(label) > MOST_LABEL_CHARACTERS:
        return None
    name: str | None = LABELS.get(label.strip(_WHITESPACE).lower())
    return name


def decode_as(encoding: str, body: bytes) -> str:
    """Return what a browser reads in some bytes, a byte order mark left in.

    Args:
        encoding: as `encoding_of` names it.

    Raises:
        LookupError: no encoding of the standard.

    >>> decode_as("shift_jis", b"\\x87\\x40 \\x87\\x8a"), decode_as("windows-1251", b"\\xd0\\xe5\\x98")
    ('① ㈱', 'Ре\\x98')
    """
    if encoding in _UTF:
        return body.decode(_UTF[encoding], "replace")
    if encoding in _FORMS:
        return _FORMS[encoding].decode(body)
    if encoding == "iso-2022-jp":
        return _iso_2022_jp(body)
    if encoding == "replacement":  # encodings in which bytes of markup can hide: nothing is read of them
        return REPLACEMENT if body else ""
    return codecs.charmap_decode(body, "strict", _table(encoding))[0]


@cache
def _table(encoding: str) -> str:
    """Return the 256 characters of a single-byte encoding."""
    if encoding == "x-user-defined":
        return "".join(chr(code if code < 0x80 else 0xF700 + code) for code in range(256))
    name = _SINGLE.get(encoding, encoding)
    differs = _SINGLE_DIFFERS.get(encoding, {})
    characters = []
    for code in range(256):
        # What Windows leaves open between 80 and 9F is a control character there.
        open_ = chr(code) if code < 0xA0 and encoding.startswith("windows-") else REPLACEMENT
        read = bytes([code]).decode(name, "replace")
        characters.append(differs.get(code, open_ if read == REPLACEMENT else read))
    return "".join(characters)


@dataclass(frozen=True, slots=True)
class _Form:
    """An encoding of one to four bytes a character.

    Attributes:
        codec: Python's, which reads nearly as the standard does.
        token: how the bytes are divided: a run of ASCII, the bytes of one character, or what has no meaning.
        differs: what the codec reads and the standard reads otherwise.
        telling: characters that show that the codec read such; None: it always may.
        own: how cp932 writes a token that the codec reads otherwise.
        held: ASCII bytes that do not stay by themselves where their token has no meaning.
    """

    codec: str
    token: re.Pattern[bytes]
    differs: Mapping[bytes, str]
    telling: re.Pattern[str] | None
    own: Callable[[bytes], bytes | None] = lambda _: None
    held: bytes = b""
    read: dict[bytes, str] = field(default_factory=dict)

    def decode(self, body: bytes) -> str:
        """Return what stands in some bytes."""
        if self.telling is not None:
            try:
                text = body.decode(self.codec)
            except UnicodeDecodeError:
                pass
            else:
                if self.telling.search(text) is None:
                    return text
        read = self.read
        return "".join([read.get(token) or self.character(token) for token in self.token.findall(body)])

    def character(self, token: bytes) -> str:
        """Return what a token stands for."""
        if token[0] < 0x80:
            return token.decode("ascii")
        character = self.differs.get(token)
        if character is None:
            character = self._by_codec(token)
        if len(token) < 4:  # of four bytes there are more than are worth remembering
            self.read[token] = character
        return character

    def _by_codec(self, token: bytes) -> str:
        try:
            if (in_cp932 := self.own(token)) is not None:
                return in_cp932.decode("cp932")
            return token.decode(self.codec)
        except UnicodeDecodeError:
            last = token[-1:]
            return REPLACEMENT + (last.decode("ascii") if last.isascii() and last not in self.held else "")


def _as_shift_jis(token: bytes) -> bytes | None:
    """Return a pair of EUC-JP as Shift_JIS writes it: both number the same table, JIS X 0208 with NEC's rows."""
    if len(token) != 2 or min(token) < 0xA1 or max(token) > 0xFE:
        return None
    row, cell = token[0] - 0xA1, token[1] - 0xA1
    lead, second = divmod(row, 2)
    trail = second * 94 + cell
    return bytes([lead + (0x81 if lead < 0x1F else 0xC1), trail + (0x40 if trail < 0x3F else 0x41)])


def _pairs(table: str) -> dict[bytes, str]:
    return {bytes.fromhex(code): character for code, character in re.findall(r"([0-9A-F]{4})(.)", table)}


def _big5() -> dict[bytes, str]:
    trails = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
    lead, trail = _HKSCS_2008_FIRST
    row = [bytes([lead, one]) for one in trails[trails.index(trail) :]]
    pictures = {bytes([0xA3, 0xC0 + number]): chr(0x2400 + number) for number in range(32)}  # of control characters
    return {
        **dict(zip(row, _HKSCS_2008, strict=False)),
        **_pairs(_BIG5_AGAIN),
        **{pair: pair.decode("cp950") for pair in map(bytes.fromhex, _BIG5_AS_CP950.split())},
        **pictures,
        b"\xa3\xe0": "\u2421",
    }


_PAIR = rb"[\x81-\xfe].|."
_GBK = (
    rb"[\x81-\xfe][0-9][\x81-\xfe][0-9]|[\x81-\xfe][0-9][\x81-\xfe]?\Z|[\x81-\xfe](?=[0-9])|" + _PAIR
)  # a beginning of four bytes at the end is one error, anywhere else its first byte is


def _token(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"[\x00-\x7f]+|" + pattern, re.DOTALL)


_CHINESE = _Form(
    "gb18030", _token(_GBK),
    {**_pairs(_GB18030), bytes.fromhex(_GB18030_2000): "\ue7c7", b"\x80": "€"},
    re.compile("[ḿ\ue5e5\ue78d-\ue796\ue7c7\ue81e\ue826\ue82b\ue82c\ue832\ue843\ue854\ue864]"),
    held=b"0123456789",
)  # fmt: skip
_FORMS: dict[str, _Form] = {
    "gbk": _CHINESE,
    "gb18030": _CHINESE,
    "big5": _Form("big5hkscs", _token(_PAIR), _big5(), re.compile("[•､‾∼♁☉／＼¥¢£]")),
    "euc-kr": _Form("cp949", _token(_PAIR), {}, re.compile("(?!)")),
    "shift_jis": _Form(
        "cp932", _token(rb"[\x81-\x9f\xe0-\xfc].|."),
        dict.fromkeys((b"\xa0", b"\xfd", b"\xfe", b"\xff"), REPLACEMENT), re.compile("[\uf8f0-\uf8f3]"),
    ),
    "euc-jp": _Form(
        "euc_jp", _token(rb"\x8f[\xa1-\xfe].|[\x8e\x8f\xa1-\xfe].|."), {b"\x8f\xa2\xb7": "～"}, None, _as_shift_jis
    ),
}  # fmt: skip


def _iso_2022_jp(body: bytes) -> str:
    """Read Japanese by escape sequences: ASCII, JIS X 0201's two halves, or pairs of JIS X 0208."""
    parts: list[str] = []
    mode, position, escaped = b"B", 0, False
    for escape in _ESCAPE.finditer(body):
        between = body[position : escape.start()]
        parts.append(_in_mode(mode, between))
        if escaped and not between:
            parts.append(REPLACEMENT)  # one that nothing follows: the standard's guard against hidden markup
        mode, position, escaped = escape[1] or b"$", escape.end(), True
    parts.append(_in_mode(mode, body[position:]))
    return "".join(parts)


def _in_mode(mode: bytes, content: bytes) -> str:
    if mode in (b"B", b"J"):
        text = _NO_ASCII.sub(REPLACEMENT, content.decode("latin-1"))
        return text if mode == b"B" else text.replace("\\", "¥").replace("~", "‾")
    if mode == b"I":
        return "".join(chr(0xFF40 + code) if 0x21 <= code <= 0x5F else REPLACEMENT for code in content)
    euc = _FORMS["euc-jp"]
    pairs = (
        bytes(code | 0x80 for code in token) if _ISO_2022_PAIR.fullmatch(token) else b"\xff"
        for token in _ISO_2022_TOKEN.findall(content)
    )
    return "".join([euc.read.get(pair) or euc.character(pair) for pair in pairs])
