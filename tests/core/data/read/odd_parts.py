"""What the odd files are made of: good rows, conversations in several languages, and files of every kind."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOOD = [{"prompt": f"What is {number} and one?", "completion": f"It is {number + 1}."} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in GOOD)
TABLE = "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in GOOD)
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
KOREAN = [("안녕하세요, 오늘 날씨가 어때요?", "오늘은 맑고 따뜻합니다."), ("이름이 뭐예요?", "저는 작은 도우미예요.")]
CHINESE = [
    ("你好,今天的天气怎么样?", "今天是晴天,我们可以出去走走。"),
    ("你是谁?", "我是一个小小的助手,很高兴为你服务。"),
]
JAPANESE = [
    ("こんにちは、今日の天気はどうですか。", "今日は晴れていて、とても暖かいです。"),
    ("お名前は何ですか。", "わたしは小さな助手です。"),
]
WESTERN = [
    ("Où est le café?", "Le café est déjà fermé – désolé."),
    ("Wie heißt du?", "Ich heiße Bär, schön dich zu sehen."),
]
RUSSIAN = [("Как тебя зовут и сколько тебе лет?", "Меня зовут Миша, мне десять лет."), ("Где ты живёшь?", "В лесу.")]
TAIWANESE = [("臺灣的首都在哪裡?", "臺灣的首都是臺北,歡迎來玩。"), ("請問您貴姓?", "我姓陳,謝謝您的關心。")]


def table_of(pairs: list[tuple[str, str]], delimiter: str = ",") -> str:
    """Questions and replies as CSV, or parted by another delimiter."""
    rows = [("prompt", "completion"), *pairs]
    return "".join(delimiter.join(f'"{cell}"' for cell in row) + "\n" for row in rows)


def lines_of(pairs: list[tuple[str, str]]) -> str:
    """Questions and replies as JSONL."""
    return "".join(json.dumps({"prompt": p, "completion": c}, ensure_ascii=False) + "\n" for p, c in pairs)


def zip_of(members: dict[str, bytes | str]) -> bytes:
    """A .zip of `members`: name to content."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def locked(data: bytes) -> bytes:
    """A .zip whose members say that they are encrypted."""
    locked = bytearray(data)
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[data.index(magic) + flags] |= 1
    return bytes(locked)


def damaged(data: bytes, at: int) -> bytes:
    """`data` with one byte turned over."""
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def parquet_of(table: dict[str, list[Any]]) -> bytes:
    """A Parquet file of columns."""
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), sink)
    return sink.getvalue()


def arrow_of(stream: bool, table: dict[str, list[Any]] | None = None) -> bytes:
    """An Arrow file or stream of columns, or of the good rows."""
    import pyarrow

    made = pyarrow.table(table) if table else pyarrow.Table.from_pylist(GOOD)
    sink = io.BytesIO()
    with (pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file)(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue()


def folder_of(files: dict[str, bytes | str]) -> Callable[[Path], None]:
    """What makes a folder of `files`: name to content."""

    def make(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def make_socket(path: Path) -> None:
    """A socket that nobody listens to."""
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path may only be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def make_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def make_dangling(path: Path) -> None:
    """A link to nothing."""
    path.symlink_to("nowhere.jsonl")


COLUMNS: dict[str, list[Any]] = {name: [row[name] for row in GOOD] for name in ("prompt", "completion")}
BLANKS = b" \n" * 60  # 120 MB of them once made
PARQUET = parquet_of(COLUMNS)
SAFETENSORS = struct.pack("<Q", 40) + b'{"w":{"dtype":"F32","shape":[1]}}'.ljust(40) + bytes(64)
DEEP = '{"prompt": "a", "completion": "b", "x": ' + "[" * 500 + "]" * 500 + "}\n"
ARRAY = json.dumps(GOOD, indent=1)
