"""The schema of NetDef."""
