"""See README.md here: which promise is shown where."""
