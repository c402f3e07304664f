"""seed-from-ia-changes follows the changes that archive.org itself makes to items."""
