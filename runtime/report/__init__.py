"""What all reports share: one page template with its macros, one stylesheet, charts and pictures."""
