"""The math reward: typed answers, compared exactly."""
