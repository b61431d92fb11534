"""What tests share: fakes of other programs, and fixtures."""
