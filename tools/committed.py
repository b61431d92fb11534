"""Compares generated files with the committed ones, and replaces these."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path


def differences(generated: Path, committed: Path) -> list[str]:
    """Name each file that is missing, different or left over in the directory `committed`."""
    fresh = {path.name for path in generated.iterdir()}
    present = {path.name for path in committed.iterdir() if path.is_file()}
    names = sorted(fresh | present)
    _, changed, unreadable = filecmp.cmpfiles(generated, committed, names, shallow=False)
    return sorted(changed + unreadable)


def replace(generated: Path, committed: Path) -> None:
    """Make the directory `committed` equal to the generated one."""
    committed.mkdir(exist_ok=True)
    for name in differences(generated, committed):
        if (generated / name).exists():
            shutil.copyfile(generated / name, committed / name)
        else:
            (committed / name).unlink()
