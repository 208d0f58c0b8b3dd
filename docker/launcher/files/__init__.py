"""Safe reading of files that other containers may have written: no link is followed, sizes and types are checked."""
