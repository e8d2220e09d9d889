"""Mutations of bytes and of header blocks: small, of the kinds that damaged, old, foreign and hostile files show."""

from __future__ import annotations

import re
from random import Random

ODD = (b"\0", b"\r", b"\n", b"\r\n", b"\t", b" ", b":", b"\xff", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"<", b">", b'"',
       b"%", b"*", b"$", b"\\", b"=", b"/", b"{", b"}", b"[", b"]", b",", b"-1", b"0", b"99999999999999999999",
       b"\x85", b"\x0b", b"\x1c", "\u0130".encode(), "\u00b2".encode(), "\u0663".encode())  # fmt: skip


def mutate(rng: Random, content: bytes, times: int = 1) -> bytes:
    """Return some bytes with a few of them changed, put in, taken out, repeated or cut off."""
    changed = bytearray(content)
    for _ in range(times):
        at = rng.randrange(len(changed) + 1)
        to = min(len(changed), at + rng.randrange(1, 12))
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at:at] = rng.choice(ODD)
            case 2:
                del changed[at:to]
            case 3:
                changed[at:at] = changed[at:to]
            case 4 if at < len(changed):
                changed[at] = rng.randrange(256)
            case 5:
                changed[at:to] = rng.choice(ODD) * rng.choice((1, 1, 2, 40))
            case 6 if rng.random() < 0.1:
                del changed[at:]
            case _:
                changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 4)))
    return bytes(changed)


def mutate_head(rng: Random, head: bytes, values: dict[bytes, tuple[bytes, ...]]) -> bytes:
    """Return a header block with one of its lines changed, folded, doubled, moved or taken out.

    Args:
        head: lines that end with CRLF, and a blank one.
        values: field name in lower case → odd values to try.
    """
    lines = head.split(b"\r\n")[:-2]
    at = rng.randrange(len(lines))
    name, colon, value = lines[at].partition(b":")
    odd = values.get(name.lower(), (b"", b"x"))
    match rng.randrange(16):
        case 0:
            lines[at] = name.swapcase() + colon + value
        case 1:
            lines[at] = bytes(rng.choice((byte, byte ^ 0x20)) if 65 <= byte & 0xDF <= 90 else byte for byte in name)
            lines[at] += colon + value
        case 2:
            del lines[at]
        case 3:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 4:
            lines.insert(rng.randrange(len(lines) + 1), name + colon + b" " + rng.choice(odd))
        case 5:
            lines[at] = name + colon + b" " + rng.choice(odd)
        case 6:
            lines[at] = name + colon + b"\r\n" + rng.choice((b" ", b"\t", b"  ")) + value.strip()
        case 7:
            cut = rng.randrange(len(value) + 1)
            lines[at] = name + colon + value[:cut] + b"\r\n " + value[cut:]
        case 8:
            lines[at] = name + rng.choice((b" ", b"\t", b"")) + colon + rng.choice((b"", b"  ", b"\t")) + value.strip()
        case 9:
            lines[at] = mutate(rng, lines[at])
        case 10:
            rng.shuffle(lines[1:])
            lines[1:] = lines[:0:-1]
        case 11:
            lines.insert(1, b"X-Long: " + b"x" * rng.choice((10, 2000, 20_000, 70_000)))
        case 12:
            lines[at] = rng.choice((b"", b"no colon", b":", b" folded", b": no name", b"N\0: v", "Ü: ü".encode()))
        case 13:
            return mutate(rng, head, rng.randrange(1, 4))
        case 14:
            return (b"\r\n".join(lines) + b"\r\n\r\n").replace(b"\r\n", b"\n")
        case _:
            ends = [rng.choice((b"\r\n", b"\n")) for _ in lines]
            return b"".join(line + end for line, end in zip(lines, ends, strict=True)) + rng.choice((b"\r\n", b"\n"))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def with_length(record_head: bytes, size: int) -> bytes:
    """Return a header whose Content-Length is another number."""
    return re.sub(rb"(?i)(content-length:\s*)\d+", lambda found: found[1] + b"%d" % size, record_head, count=1)
