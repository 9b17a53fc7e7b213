"""Engine `captions`: class names to addresses, by the captions of tables on disk."""
