"""What a run leaves behind: JSON, PNG files with their metadata, sheets, lines on a terminal; no torch here."""
