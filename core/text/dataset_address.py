"""What people paste where a dataset is asked for: a path in quotes, a file:// address, one of the Hugging Face Hub."""

import re
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from core.workspace import as_path

_QUOTES = ('""', "''", "“”", "„“", "«»", "‘’", "``", "<>")
_DATASETS = re.compile(
    r"(?:hf://)?datasets/([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@[\w.-]+)?((?:/[^/]+)*)/?", re.ASCII
)
_PAGES = {"blob", "resolve", "raw"}  # .../blob/main/rows.jsonl
_FILE_OF_HUB = re.compile(r"hf:([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/((?:[\w.,()+@= -]+/)*[\w.,()+@= -]+)")


def plain_path(given: str) -> str:
    """`given` without quotes around it; the path of a file:// address; 'hf:user/name' or 'hf:user/name/file' of a
    Hub's. Anything else as it is, without white space around it.
    """
    text = given.strip()
    while len(text) > 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    if text.lower().startswith("file:"):
        parts = urlsplit(text)
        return url2pathname(parts.path) if parts.netloc in ("", "localhost") else text
    return _of_hub(text) or text


def refusal_of(path: str) -> str | None:
    """Why what `plain_path` gave is no dataset: it lies elsewhere on the web; None where it may be one."""
    if not re.match(r"(?:https?|ftp|s3|gs)://", path, re.IGNORECASE):
        return None
    host = urlsplit(path).netloc
    if host in _hosts():
        return f"{path[:200]} is a Hugging Face page, but not a dataset. Use the dataset's page or its id"
    return f"{path[:200]} is a web address. Download the file and use that, or use a Hugging Face dataset"


def file_of_hub(path: str) -> tuple[str, str] | None:
    """The dataset's id and the file in it that 'hf:user/name/file' means; None where it names no file."""
    found = _FILE_OF_HUB.fullmatch(path.strip())
    if found is None or any(part.strip(". ") == "" for part in found[2].split("/")):
        return None
    return found[1], found[2]


def _of_hub(text: str) -> str | None:
    """'hf:user/name', with a file behind it where the address is that of one; None for no dataset's address."""
    address = text
    if as_path(text) is not None:
        return None
    if re.match(r"https?://", text, re.IGNORECASE):
        parts = urlsplit(text)
        if parts.netloc.lower() not in _hosts():
            return None
        address = unquote(parts.path).strip("/")
    elif "." in text.partition("/")[0] and "/datasets/" in text and text.partition("/")[0].lower() in _hosts():
        address = text.partition("/")[2]
    found = _DATASETS.fullmatch(address)
    if found is None:
        return None
    within: list[str] = [part for part in found[2].split("/") if part]
    page = "/".join(within[2:]) if within[:1] and within[0] in _PAGES else ""
    file = found[2].strip("/") if text.lower().startswith("hf://") else page
    return f"hf:{found[1]}/{file}" if file else f"hf:{found[1]}"


def _hosts() -> set[str]:
    from huggingface_hub import constants

    return {urlsplit(each).netloc.lower() for each in (constants.ENDPOINT, constants._HF_DEFAULT_ENDPOINT)}
