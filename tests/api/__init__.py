"""What users are promised, by the public names."""
