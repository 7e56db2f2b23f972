"""Models at work: evaluation, decoding, distillation, growth, the zoo."""
