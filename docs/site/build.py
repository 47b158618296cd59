"""Build the site: ``python docs/site/build.py`` writes it into runs/site. Any warning ends it with an error."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import pages
from sphinx.cmd.build import build_main

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=pages.ROOT / "runs" / "site", help="folder of the site")
    out = parser.parse_args().out.resolve()
    if out.exists() and any(out.iterdir()) and not (out / ".buildinfo").exists():
        parser.error(f"{out} holds something else than a site; name another folder, for this one would be emptied")
    # From nothing every time, since pages that were read before warn of nothing.
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="site-") as staged:
        pages.stage(Path(staged))
        failed = build(Path(staged), out)
    if not failed:
        shutil.copytree(pages.LEADERBOARD, out / pages.LEADERBOARD.name)
        print(f"site: {out / 'index.html'}")
    return failed


def build(staged: Path, out: Path) -> int:
    """Build the site from staged pages, and return 0 if nothing had to be warned of."""
    return build_main(["-W", "--keep-going", "-q", "-c", str(HERE), "-d", f"{staged}/trees", str(staged), str(out)])


if __name__ == "__main__":
    sys.exit(main())
