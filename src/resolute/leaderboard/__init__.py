"""Leaderboards: entries that others can submit and re-check, and the static site made of them."""

from resolute.leaderboard.building import entries_of, entry_of
from resolute.leaderboard.checking import differences
from resolute.leaderboard.entry import Entry, read_entry, schema
from resolute.leaderboard.site import build_site

__all__ = ["Entry", "build_site", "differences", "entries_of", "entry_of", "read_entry", "schema"]
