"""Find the files of a published data set in the usual places, or have them downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snas.data.base import Progress
from snas.data.download import DownloadError, Published, cache_folder, download
from snas.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        name: of the data set.
        classes: number of its classes.
        folders: sub-folders of the data folder in which its files are looked for, before the data folder itself.
        files: as published.
        mirrors: addresses from which they can be downloaded, each ending in "/".
    """

    name: str
    classes: int
    folders: tuple[str, ...]
    files: tuple[Published, ...]
    mirrors: tuple[str, ...]

    def places(self, data_dir: Path | None) -> list[Path]:
        """Folders to look in, in this order; `data_dir` None stands for the cache folder."""
        root = cache_folder() if data_dir is None else data_dir
        return [*(root / folder for folder in self.folders), root]


def find(places: Sequence[Path], spellings: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Find files that belong together: all in one folder, the one that has most of them, the first among equals.

    Args:
        places: folders to look in; need not exist.
        spellings: file -> the names that it may have, the best one first.

    Returns:
        File -> path, for those that are there.
    """
    best: dict[str, Path] = {}
    for place in places:
        here = {}
        for file, names in spellings.items():
            path = next((place / name for name in names if os.path.isfile(place / name)), None)
            if path is not None:
                here[file] = path
        if len(here) > len(best):
            best = here
    return best


def obtain(
    source: Source,
    data_dir: Path | None,
    spellings: Mapping[str, Sequence[str]],
    *,
    allow_download: bool,
    progress: Progress | None,
) -> dict[str, Path]:
    """Return the path of every file of `source`, after downloading those that are missing.

    Missing files join those that are there only where these are the published ones, byte for byte: somebody's own
    files are never mixed with others.

    Args:
        source: what is wanted.
        data_dir: where it is looked for and downloaded to; None for the cache folder.
        spellings: name of a published file -> the names that it may have.
        allow_download: whether missing files may be downloaded.
        progress: called with lines of text.

    Raises:
        InputError: one line that says what to put where.
    """
    places = source.places(data_dir)
    found = find(places, spellings)
    missing = [file for file in source.files if file.name not in found]
    if missing and any(not file.matches(found[file.name]) for file in source.files if file.name in found):
        raise incomplete(source.name, next(iter(found.values())).parent, [file.name for file in missing])
    if missing and not allow_download:
        names = ", ".join(file.name for file in missing)
        looked = ", ".join(str(place) for place in places)
        raise InputError(
            f"dataset {source.name!r} lacks {names} (looked in {looked}); put them there or give their folder as "
            "--data-dir"
        )
    target = next(iter(found.values())).parent if found else places[-1] / source.name
    for file in missing:
        try:
            found[file.name] = download(file, mirrors=source.mirrors, folder=target, progress=progress)
        except DownloadError as error:
            names = ", ".join(file.name for file in source.files)
            raise InputError(
                f"dataset {source.name!r} is not in {places[-1]} and cannot be downloaded ({error}); put {names} into "
                "a folder and give it as --data-dir"
            ) from None
    return found


def incomplete(name: str, folder: Path, missing: Sequence[str]) -> InputError:
    """The error for a folder that has some of the files."""
    return InputError(f"dataset {name!r} in {folder} lacks {', '.join(missing)}; put all files into one folder")
