"""What the VMM feeds the firmware: the bytes that a launch digest covers."""
