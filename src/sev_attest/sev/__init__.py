"""SEV and SEV-ES: platform certificates, sessions, launch measurements, secrets."""
