"""Keep what has been released of protos/, and let nothing break it: docs/compatibility.md has the rules.

    tools/released.py check            fail if protos/ breaks the newest image in protos/released
    tools/released.py write VERSION    keep protos/ as the image of that release, which is not out yet

A release is out once CHANGELOG.md has a heading for it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "protos" / "released"
CHANGELOG = ROOT / "CHANGELOG.md"
BUF = Path(sys.executable).with_name("buf")

VERSION = re.compile(r"\d+\.\d+\.\d+")
HEADING = re.compile(rf"^## \[({VERSION.pattern})\]", re.MULTILINE)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["check"]:
            check()
        case ["write", version] if VERSION.fullmatch(version):
            write(version)
        case _:
            sys.exit("usage: tools/released.py check | write X.Y.Z")


def check() -> None:
    lacking = released() - kept()
    if lacking:
        sys.exit(f"CHANGELOG.md has a heading for {_listed(lacking)}, but protos/released has no image of it")
    if not kept():
        sys.exit("protos/released has no image: make release-descriptor")
    newest = image(max(kept(), key=in_order))
    if buf("breaking", "--against", str(newest)) != 0:
        sys.exit(f"protos/ breaks what {newest.relative_to(ROOT)} promises: see docs/compatibility.md")


def write(version: str) -> None:
    later = {each for each in kept() if in_order(each) > in_order(version)}
    if version in released() or later:
        what = f"there is {_listed(later)} already" if later else "CHANGELOG.md has a heading for it"
        sys.exit(f"{version} is out ({what}): what was released is never changed")
    if kept():
        check()
    # Without comments: the image changes with the protocol alone.
    if buf("build", "--exclude-source-info", "--output", str(image(version))) != 0:
        sys.exit("protos/ cannot be built")


def kept() -> set[str]:
    return {path.stem for path in IMAGES.glob("*.binpb")}


def released() -> set[str]:
    return set(HEADING.findall(CHANGELOG.read_text()))


def image(version: str) -> Path:
    return IMAGES / f"{version}.binpb"


def in_order(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def buf(*arguments: str) -> int:
    return subprocess.run([BUF, *arguments], cwd=ROOT, check=False).returncode


def _listed(versions: set[str]) -> str:
    return ", ".join(sorted(versions, key=in_order))


if __name__ == "__main__":
    main(sys.argv[1:])
