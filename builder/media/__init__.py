"""Media: the boot kit that every medium starts from, the payload it carries, and the ISO itself."""
