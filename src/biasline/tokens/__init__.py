"""Clean examples → token sets: the template, the mask, the sets on disk. No torch in here."""
