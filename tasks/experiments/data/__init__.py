"""Data sets: splits, synthetic pictures, caches, random draws by key."""
