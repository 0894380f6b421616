"""The cookies of the pages, by name."""

SESSION_COOKIE = "deft_session"
"""Of a person who logged in with a key."""

RATER_COOKIE = "deft_rater"
"""Of a rater who opened their personal link; a browser can hold both side by side."""
