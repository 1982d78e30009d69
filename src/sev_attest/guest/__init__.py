"""What a VMM boots and what is measured of it; shared by SEV and SEV-SNP."""
