"""reaudit makes entities unchecked again whose last audit was long ago."""
