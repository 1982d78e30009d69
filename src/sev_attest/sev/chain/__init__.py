"""Is this platform AMD's? Certificates, pinned roots, packagings, and the numbered check."""
