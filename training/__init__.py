"""data → network → **bundle**: everything that happens offline, with torch."""
