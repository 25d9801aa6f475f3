"""Images → people → pictures. Pure: no queue, no framework, no files, no environment."""
