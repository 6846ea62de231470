"""A dataset of the Hugging Face Hub: its training split, and its validation split, streamed into the workspace."""

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.data.read import SUFFIXES
from core.data.read.columns import LEFT_ON_HUB
from core.data.read.splits import use_of
from core.data.store import keep
from core.errors import DataError
from core.text.dataset_address import file_of_hub
from core.text.library_errors import telling_line
from core.workspace import Workspace, as_path, read_json, write_json

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_PREFIX = "hf:"
_BATCH = 1000
_RETRIES = 3  # when the line breaks in the middle; the library's own 20 take minutes


def looks_like_hub_id(path: str) -> bool:
    """Whether `path` means a dataset of the Hub: 'hf:user/name', or 'user/name' where there is no such file."""
    name = path.strip()
    if name.startswith(_PREFIX):
        return file_of_hub(name) is not None or _ID.fullmatch(name[len(_PREFIX) :]) is not None
    return _ID.fullmatch(name) is not None and not name.lower().endswith(SUFFIXES) and as_path(name) is None


def fetch(
    workspace: Workspace,
    id: str,
    config: str | None = None,
    split: str | None = None,
    validation: bool = True,
) -> Path:
    """One split of the dataset `id` as a Parquet file in the workspace; asked for again only where it has changed.

    With `validation`, a validation split beside that of training is fetched too: then it is a folder with a file for
    each. Other splits stay on the Hub, which the file says. Raises DataError: no such dataset, gated, no network,
    several configurations or splits to choose from.
    """
    from huggingface_hub import constants

    named = file_of_hub(id)
    if named is not None:
        return _fetch_file(workspace, *named)
    name = id.strip().removeprefix(_PREFIX)
    if Path(name).exists():  # the library would take that, whatever it is
        raise DataError(
            f"There is a folder {name} where Nibble runs, which hides the dataset of the same name. Rename the folder."
        )
    asked = hashlib.sha256(f"{name} {config} {split} {validation}".encode()).hexdigest()
    record = workspace.datasets / f".hub-{asked[:16]}.json"
    try:
        if constants.HF_HUB_OFFLINE:
            raise _Unreachable(f"{name} is not on this machine, and HF_HUB_OFFLINE forbids downloading it.")
        revision = _revision(name)
    except _Unreachable:
        kept = _kept(workspace, record, None)
        if kept is None:
            raise
        return kept
    kept = _kept(workspace, record, revision)
    if kept is not None:
        return kept
    path = _download(workspace, name, revision, config or None, split or None, validation)
    write_json(record, {**(read_json(record) or {}), revision: str(path.relative_to(workspace.datasets))})
    return path


def _fetch_file(workspace: Workspace, name: str, file: str) -> Path:
    """One file of a dataset, as it lies there. Raises DataError."""
    from huggingface_hub import errors, hf_hub_download

    try:
        path = hf_hub_download(name, file, repo_type="dataset")
    except errors.RepositoryNotFoundError:
        _revision(name)  # which says why
        raise DataError(f"{file} of {name} could not be downloaded. Try again.") from None
    except errors.LocalEntryNotFoundError:
        raise _Unreachable(f"{file} of {name} is not on this machine, and Hugging Face cannot be reached.") from None
    except errors.EntryNotFoundError:
        raise DataError(f"The dataset {name} has no file {file}. Check the name.") from None
    except (errors.HTTPError, OSError, ValueError) as error:
        raise DataError(f"{file} of {name} could not be downloaded ({telling_line(error)}). Try again.") from None
    return keep(workspace, Path(path), Path(file).name).path


class _Unreachable(DataError):
    """The Hub cannot be asked; what was fetched before is as good."""


def _kept(workspace: Workspace, record: Path, revision: str | None) -> Path | None:
    """The file that was fetched of that revision, or of the latest where that is not known."""
    revisions = read_json(record) or {}
    file = revisions.get(revision) if revision else next(reversed(revisions.values()), None)
    path = workspace.datasets / file if file else None
    return path if path is not None and path.exists() else None


def _revision(name: str) -> str:
    """The commit that the dataset is at. Raises DataError where it cannot be had, _Unreachable without a network."""
    from huggingface_hub import HfApi, constants, errors

    try:
        return str(HfApi().dataset_info(name, timeout=10).sha)
    except errors.GatedRepoError:
        raise DataError(
            f"{name} is gated: accept its terms at {constants.ENDPOINT}/datasets/{name}, then sign in to Hugging Face "
            "on the System tab."
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"There is no dataset {name} on Hugging Face, or it is private. Check the name, "
            "or sign in on the System tab."
        ) from None
    except (errors.HTTPError, OSError) as error:
        raise _Unreachable(
            f"{name} is not on this machine, and Hugging Face cannot be reached ({type(error).__name__}). "
            "Check the network, or use a local file."
        ) from None


def _download(
    workspace: Workspace, name: str, revision: str, config: str | None, split: str | None, validation: bool
) -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.config.STREAMING_READ_MAX_RETRIES = _RETRIES
    with _said(name):
        configs = datasets.get_dataset_config_names(name, revision=revision)
        config = _chosen(name, "configuration", config, configs, [each for each in configs if each == "default"])
        splits = datasets.get_dataset_split_names(name, config, revision=revision)
        to_train = [each for each in splits if use_of(each) == "train"]
        split = _chosen(name, "split", split, splits, ["train"] if "train" in splits else to_train)
        taken = [split, *(_beside(split, splits) if validation else [])]
        called = "-".join([name.replace("/", "-"), *([config] if config != "default" else [])])
        with tempfile.TemporaryDirectory(dir=workspace.datasets, prefix=".hub-") as folder:
            for each in taken:
                stream = datasets.load_dataset(name, config, split=each, streaming=True, revision=revision)
                left = [other for other in splits if other not in taken] if each == split else []
                tables = stream.with_format("arrow").iter(batch_size=_BATCH)
                _write(tables, Path(folder) / f"{each}.parquet", left)
            if len(taken) == 1:
                return keep(workspace, Path(folder) / f"{split}.parquet", f"{called}-{split}.parquet").path
            return keep(workspace, Path(folder), called).path


def _chosen(name: str, kind: str, wanted: str | None, offered: list[str], usual: list[str]) -> str:
    """The configuration or split that is `wanted`; else the only one there is, or the only one of the `usual`."""
    if wanted in offered:
        return str(wanted)
    if wanted is None and (len(offered) == 1 or len(usual) == 1):
        return offered[0] if len(offered) == 1 else usual[0]
    begins = f"{name} has no {kind} {wanted!r}" if wanted else f"{name} has several {kind}s"
    more = f" and {len(offered) - 20} more" if len(offered) > 20 else ""
    raise DataError(f"{begins}: choose one of {', '.join(offered[:20])}{more}.")


def _beside(split: str, splits: list[str]) -> list[str]:
    """The validation splits that go with a training one: 'validation' with 'train', 'dev_sft' with 'train_sft'."""
    if use_of(split) != "train":
        return []
    kind = split.lower().partition("_")[2]
    return [each for each in splits if use_of(each) == "held_out" and each.lower().partition("_")[2] == kind]


def _write(tables: Iterator[Any], file: Path, left: list[str]) -> None:
    """The tables as one Parquet file, their columns those of the first; it names the splits that were `left`."""
    import pyarrow.parquet as parquet

    writer = None
    about = {LEFT_ON_HUB: ", ".join(left)} if left else None
    for table in tables:
        writer = writer or parquet.ParquetWriter(file, table.schema.with_metadata(about))
        writer.write_table(table.cast(writer.schema))
    if writer is None:
        raise DataError(f"its split {file.stem} holds no rows. Choose another one.")
    writer.close()


@contextmanager
def _said(name: str) -> Iterator[None]:
    """Turn what the libraries say about a dataset into a sentence."""
    import pyarrow
    from datasets.exceptions import DatasetsError
    from datasets.table import CastError
    from huggingface_hub import errors

    try:
        yield
    except DataError as error:
        message = str(error)
        raise DataError(message if message.startswith(name) else f"{name}: {message}") from None
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise DataError(f"{name} is generated by a script, which Nibble does not run. Use a copy in Parquet.") from None
    except (pyarrow.ArrowException, CastError):
        raise DataError(
            f"{name}: its files have different columns, so they do not form one table. Download them and use the "
            f"folder."
        ) from None
    except (errors.HTTPError, DatasetsError, OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be downloaded ({telling_line(error)}). Try again, or give a file of it."
        ) from None
