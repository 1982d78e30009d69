"""SEV-SNP: attestation reports, their certificates, and launch digests."""
