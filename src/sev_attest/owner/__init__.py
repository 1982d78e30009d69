"""The owner's side: what was launched, and what this owner demands."""
