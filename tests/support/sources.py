# SPDX-License-Identifier: Apache-2.0
"""A change of one expression in a tree of C sources.

It is found by the function, or the enumerator, that it stands in, wherever that is defined and however it is laid out:
renamed files and another format leave it as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

_TOKEN = re.compile(r"\w+|[^\w\s]")
_CLOSING = {"(": ")", "{": "}"}


def change(tree: Path, where: str, before: str, after: str) -> None:
    """Put ``after`` in the place of ``before``.

    Args:
        tree: Directory of the sources.
        where: A function or an enumerator.
        before: What stands once in all definitions of that name; any whitespace matches any other.
        after: What takes its place.

    Raises:
        ValueError: There is no such name, or ``before`` does not stand there exactly once.
    """
    pattern = _pattern(before)
    found = [
        (file, start + match.start(), start + match.end())
        for file in sorted(tree.rglob("*.[ch]"))
        for start, text in definitions(file.read_text(), where)
        for match in pattern.finditer(text)
    ]
    if len(found) != 1:
        raise ValueError(f"{before!r} stands in {where} {len(found)} times")
    file, start, end = found[0]
    source = file.read_text()
    file.write_text(source[:start] + after + source[end:])


def definitions(source: str, name: str) -> Iterator[tuple[int, str]]:
    """Where functions, or enumerators, of a name are defined in a source: offset and text."""
    for match in re.finditer(rf"\b{name}\s*\(", source):
        body = re.compile(r"\s*\{").match(source, _closed(source, match.end() - 1))
        if body:
            yield match.start(), source[match.start() : _closed(source, body.end() - 1)]
    for match in re.finditer(r"\benum\s*\w*\s*\{", source):
        end = _closed(source, match.end() - 1)
        for one in re.finditer(rf"\b{name}\s*=[^,}}]*", source[match.end() : end]):
            yield match.end() + one.start(), one[0]


def _closed(source: str, at: int) -> int:
    """The offset behind the bracket that closes the one at an offset."""
    opening, depth = source[at], 0
    for match in re.compile(rf"[{opening}{_CLOSING[opening]}]").finditer(source, at):
        depth += 1 if match[0] == opening else -1
        if not depth:
            return match.end()
    raise ValueError(f"a {opening} is not closed")


def _pattern(text: str) -> re.Pattern[str]:
    tokens = _TOKEN.findall(text)
    gaps = [r"\s+" if _is_word(left) and _is_word(right) else r"\s*" for left, right in pairwise(tokens)]
    joined = "".join(re.escape(token) + gap for token, gap in zip(tokens, [*gaps, ""], strict=True))
    first, last = (r"\b" if _is_word(tokens[end]) else "" for end in (0, -1))
    return re.compile(first + joined + last)


def _is_word(token: str) -> bool:
    return token[0].isalnum() or token[0] == "_"
