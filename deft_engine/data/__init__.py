"""From uploads to samples."""
