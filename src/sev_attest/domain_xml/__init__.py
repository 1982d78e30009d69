"""libvirt's domain XML: a safe reader, the rules that attestation needs, and their fixes."""
