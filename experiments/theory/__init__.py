"""What is possible and what is to be expected: pure functions of plan and topology."""
