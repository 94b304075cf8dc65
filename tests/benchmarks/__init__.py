"""The quality benchmark and its judge; nothing under pigeon_cli imports them (DESIGN.md section 3)."""
