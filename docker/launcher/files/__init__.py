"""Files that others may have written: opened without following a link, read within bounds, every type checked."""
