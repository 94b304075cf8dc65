"""Neural modules that know no files and no devices (DESIGN.md section 4)."""
