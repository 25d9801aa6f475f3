"""Where overlays go."""
