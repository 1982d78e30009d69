"""Why a launch differs from what its owner stated: what SEV and SEV-SNP share of the search."""
