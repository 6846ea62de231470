"""A text file as lines of bytes or as pieces of characters, whatever its encoding."""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass

from core.data.read.blob import BLOCK, Blob, Progress
from core.data.read.encoding import Encoded
from core.errors import DataError

LONGEST = 64 * 2**20  # bytes of one row; far beyond any conversation


@dataclass(frozen=True)
class DecodedText:
    """A text file of one `kind`."""

    name: str
    blob: Blob
    encoded: Encoded
    kind: str

    @property
    def codec(self) -> str:
        """What the bytes of `open()` are in: wide encodings come as UTF-8."""
        return "utf-8" if self.encoded.wide else self.encoded.codec

    @property
    def strictness(self) -> str:
        """How to decode: half characters of UTF-16 pass, for a later step to name them."""
        return "surrogatepass" if self.encoded.wide else "strict"

    def open(self, progress: Progress | None = None) -> io.BufferedReader:
        """Its bytes without a byte order mark, lines ending with a line feed."""
        stream = self.blob.open(progress)
        if self.encoded.wide or self.encoded.returns:
            stream = io.BufferedReader(_Recoded(self.name, stream, self.encoded), BLOCK)
        if stream.peek(3)[:3] == codecs.BOM_UTF8:
            stream.read(3)
        return stream

    def lines(self, progress: Progress | None = None) -> Iterator[bytes]:
        """Its lines with their line feeds; one longer than `LONGEST` comes in pieces, only its last with one."""
        with self.open(progress) as stream:
            while line := stream.readline(LONGEST):
                yield line

    def pieces(self, progress: Progress | None = None) -> Iterator[str]:
        """Its characters, in pieces. Raises DataError, with the line, where bytes are none in its encoding."""
        decoder = codecs.getincrementaldecoder(self.codec)(self.strictness)
        line = 1
        with self.open(progress) as stream:
            while True:
                block = stream.read(BLOCK)
                try:
                    piece = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    line += error.object.count(b"\n", 0, error.start)
                    raise DataError(f"{self.name}, line {line}: {self.not_letters(error)}") from None
                if piece:
                    yield piece
                if not block:
                    return
                line += piece.count("\n")

    def sample(self, length: int) -> str:
        """Its first characters, whole ones; what cannot be decoded stands as a replacement."""
        with self.open() as stream:
            block = stream.read(length)
        errors = "replace" if self.strictness == "strict" else self.strictness
        return codecs.getincrementaldecoder(self.codec)(errors).decode(block)

    def not_letters(self, error: UnicodeDecodeError) -> str:
        """What is wrong with the bytes of `error`, and what to do."""
        problem = f"the byte {error.object[error.start]:#04x} is not valid in {self.encoded.name}"
        return f"{problem}. Set the right encoding, or save the file as UTF-8."


class _Recoded(io.RawIOBase):
    """A stream in UTF-16 or UTF-32, or with carriage returns for line ends, as UTF-8 with line feeds."""

    def __init__(self, name: str, stream: io.BufferedReader, encoded: Encoded) -> None:
        self._name, self._stream, self._encoded = name, stream, encoded
        self._decoder = codecs.getincrementaldecoder(encoded.codec)("surrogatepass") if encoded.wide else None
        self._ready = b""
        self._line = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            block = self._stream.read(BLOCK)
            self._ready = self._recode(block)
            if not block:
                break
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def _recode(self, block: bytes) -> bytes:
        if self._decoder is None:
            return block.replace(b"\r", b"\n")
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError:
            raise DataError(
                f"{self._name}, after line {self._line}: a byte that is not valid in {self._encoded.name}; the file "
                f"is truncated or mixes two encodings. Export it again, as UTF-8."
            ) from None
        self._line += text.count("\n")
        if self._encoded.returns:
            text = text.replace("\r", "\n")
        return text.encode("utf-8", "surrogatepass")

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
