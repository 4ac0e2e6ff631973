"""Strategies that spoil good inputs: bytes, YAML trees, rows of tables."""

from __future__ import annotations

import csv
import io
import json
import string
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

PIECES = (
    b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\r\n", b"\r", b"\x85", b"\x1b[31m",
    "\u202e".encode(), "\u2028".encode(), "ﷺ".encode(), b"'", b'"', b"{", b"}", b"[", b"]", b"&a ",
    b"*a ", b"!!int ", b"!!python/name:os.system ", b"<<: ", b"? ", b": ", b"- ", b"\t", b"#", b"|",
    b"%YAML 9.9\n", b"---\n", b"...\n", b"9" * 40, b"-1", b"1e999", b".nan", b"0x", b"{a}", b",",
    b"null", b"~", b"\\ud800", b"../../", b"/dev/zero", b"yes",
)  # fmt: skip

WORDS = (
    "", " ", "all", "models", "..", "../x", "/etc/passwd", "a/b", "CON", "x" * 300, "\x00",
    "\ud800", "\u202eevil", "a\nb", "a\rb", "\x1b[2J", "יום", "ﷺ", "é\u0301", "😀", "{a}",
    "{topic:>999999999}", "{0}", "%s", "2024-99-99", "1:59:59", "0x", "=", "<<", "nan", "a@b", "@",
    "*", "words.txt", "norms.csv", "m.yaml", "base.yaml", ".", "stories.jsonl", "link", "pipe",
    "writer", "own",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 10**6, 2**31, 2**63, -(2**63), 2**64, 10**100, 0.0, -0.5, 1e308, 5e-324)


def odd_values() -> st.SearchStrategy[Any]:
    """Values that a key might be given, with all of Unicode, halves of surrogate pairs too."""
    text = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=()), max_size=8)
    numbers = st.sampled_from(NUMBERS) | st.integers() | st.floats()
    leaves = st.none() | st.booleans() | numbers | text
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
        ),
        max_leaves=6,
    )


@st.composite
def spoilt_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    raw = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = min(len(raw), start + draw(st.integers(0, 40)))
        change = draw(st.integers(0, 6))
        if change == 0 and start < len(raw):
            raw[start] ^= 1 << draw(st.integers(0, 7))
        elif change == 1:
            del raw[start:end]
        elif change == 2:
            del raw[start:]
        elif change == 3:
            raw[start:start] = raw[start:end]
        elif change == 4:
            raw[start:end] = draw(st.binary(max_size=12))
        elif change == 5:
            raw[:] = raw.replace(b"\n", draw(st.sampled_from((b"\r\n", b"\r", b"\n\n", b" "))))
        else:
            raw[start:start] = draw(st.sampled_from(PIECES)) * draw(st.integers(1, 3))
    return bytes(raw)


@st.composite
def spoilt_yaml(draw: st.DrawFn, good: str) -> bytes:
    """A tree with nodes replaced, dropped, renamed, repeated, tagged, or put into each other."""
    root = yaml.compose(good, Loader=yaml.SafeLoader)
    for _ in range(draw(st.integers(1, 3))):
        holders = [n for n in _nodes(root) if isinstance(n, yaml.CollectionNode) and n.value]
        if not holders:
            break
        _spoil_node(draw, draw(st.sampled_from(holders)), root)
    return yaml.serialize(root, allow_unicode=draw(st.booleans())).encode("utf-8", "surrogatepass")


def _nodes(root: yaml.Node) -> list[yaml.Node]:
    found: dict[int, yaml.Node] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop(0)
        if id(node) in found:
            continue
        found[id(node)] = node
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return list(found.values())


def _spoil_node(draw: st.DrawFn, holder: yaml.CollectionNode, root: yaml.Node) -> None:
    at = draw(st.integers(0, len(holder.value) - 1))
    mapping = isinstance(holder, yaml.MappingNode)
    key, value = holder.value[at] if mapping else (None, holder.value[at])

    def put(node: yaml.Node) -> None:
        holder.value[at] = (key, node) if mapping else node

    change = draw(st.integers(0, 7))
    if change == 0:
        del holder.value[at]
    elif change == 1:
        holder.value.append(holder.value[at])
    elif change == 2:
        put(draw(st.sampled_from(_nodes(root))))  # an alias, perhaps of what it stands in
    elif change == 3 and isinstance(value, yaml.ScalarNode):
        tag = draw(st.sampled_from(("int", "bool", "float", "timestamp", "binary", "set")))
        put(yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", value.value))
    elif change == 4 and isinstance(key, yaml.ScalarNode):
        renamed = draw(st.sampled_from((key.value[1:], key.value + "s", key.value.upper(), *WORDS)))
        holder.value[at] = (yaml.ScalarNode(key.tag, renamed), value)
    elif change == 5:
        put(yaml.SequenceNode("tag:yaml.org,2002:seq", [value, value]))
    else:
        put(yaml.SafeDumper(io.StringIO()).represent_data(draw(odd_values())))


Rows = list[dict[str, Any]]


@st.composite
def spoilt_rows(draw: st.DrawFn, good: Rows) -> Rows:
    rows = [dict(row) for row in good]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        column = draw(st.sampled_from(sorted(row) or ["emotion"]))
        change = draw(st.integers(0, 4))
        if change == 0:
            row.pop(column, None)
        elif change == 1:
            row[draw(st.sampled_from((*WORDS, *(string.ascii_lowercase))))] = row.pop(column, None)
        elif change == 2:
            rows.append(dict(row))
        else:
            row[column] = draw(odd_values())
    return rows


@st.composite
def spoilt_jsonl(draw: st.DrawFn, good: Rows) -> bytes:
    lines = []
    plain = draw(st.booleans())
    for row in draw(spoilt_rows(good)):
        line = json.dumps(row, ensure_ascii=plain)
        if draw(st.integers(0, 20)) == 0 and row:
            line = line[:-1] + ", " + line[1:]  # every key twice
        lines.append(line)
    return draw(st.sampled_from(("\n", "\r\n", "\n\n"))).join(lines).encode("utf-8", "replace")


@st.composite
def spoilt_csv(draw: st.DrawFn, good: Rows) -> bytes:
    rows = draw(spoilt_rows(good))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if draw(st.integers(0, 9)) == 0 and columns:
        columns.append(draw(st.sampled_from(columns)))
    quoting = draw(st.sampled_from((csv.QUOTE_ALL, csv.QUOTE_MINIMAL)))
    stream = io.StringIO()
    writer = csv.writer(
        stream,
        delimiter=draw(st.sampled_from(",;\t")),
        quoting=quoting,
        lineterminator=draw(st.sampled_from(("\n", "\r\n", "\r"))),
    )
    for cells in [columns, *([str(row.get(name, "")) for name in columns] for row in rows)]:
        writer.writerow(cells[: draw(st.sampled_from((None, None, None, 1)))])
    return stream.getvalue().encode("utf-8", "replace")


ODD_TYPES: tuple[Callable[[list[str]], pa.Array], ...] = (
    lambda texts: pa.array(range(len(texts)), pa.int64()),
    lambda texts: pa.array([t.encode() + b"\xff" for t in texts], pa.binary()),
    lambda texts: pa.array([None] * len(texts), pa.null()),
    lambda texts: pa.array([[t] for t in texts], pa.list_(pa.string())),
    lambda texts: pa.array([{"a": t} for t in texts]),
    lambda texts: pa.array([2**62 + i for i in range(len(texts))], pa.timestamp("us")),
    lambda texts: pa.array([1e308] * len(texts), pa.float64()),
    lambda texts: pa.array(texts).dictionary_encode(),
    lambda texts: pa.Array.from_buffers(  # text that is not UTF-8
        pa.string(), len(texts), pa.array([b"\xff" + t.encode() for t in texts]).buffers()
    ),
)


@st.composite
def spoilt_parquet(draw: st.DrawFn, good: Rows) -> bytes:
    columns = {name: [str(row.get(name, "")) for row in good] for name in good[0]}
    names, arrays = [], []
    for name, texts in columns.items():
        if draw(st.integers(0, 8)) == 0:
            continue
        names.append(draw(st.sampled_from((name, name, name, *columns, "x"))))
        odd = draw(st.sampled_from((None, *ODD_TYPES)))
        arrays.append(pa.array(texts) if odd is None else odd(texts))
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays, names=names), stream)
    raw = stream.getvalue()
    return draw(spoilt_bytes(raw)) if draw(st.booleans()) else raw
