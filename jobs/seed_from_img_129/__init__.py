"""The job seed-from-img-129: entities that the audit of 2021 found fault with are audited first."""
