"""What a user can set. The command line's flags, their help and the recorded settings all come from these fields."""

from snas.settings.base import PANELS, Settings, option, read_baselines, registry_path
from snas.settings.search import AUTO_TRAINS, SearchSettings
from snas.settings.single import PruneSettings, TransferSettings, as_in_row
from snas.settings.study import STUDY_FACTORS, StudySettings
from snas.settings.sweep import SweepSettings

__all__ = [
    "AUTO_TRAINS",
    "PANELS",
    "STUDY_FACTORS",
    "PruneSettings",
    "SearchSettings",
    "Settings",
    "StudySettings",
    "SweepSettings",
    "TransferSettings",
    "as_in_row",
    "option",
    "read_baselines",
    "registry_path",
]
