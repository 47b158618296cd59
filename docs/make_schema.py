"""Write docs/leaderboard.schema.json again, after a change of the entries of leaderboards."""

from pathlib import Path

from resolute.leaderboard.site import SCHEMA, schema_text

(Path(__file__).parent / SCHEMA).write_text(schema_text(), encoding="utf-8")
