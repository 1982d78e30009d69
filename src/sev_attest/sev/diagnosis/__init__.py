"""Find out why a launch measurement does not match."""
