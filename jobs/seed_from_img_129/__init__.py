"""seed-from-img-129 gives entities that the audit of 2021 found faulty a high priority."""
