"""How much of a known optimum each learned allocator finds; see docs/known_answers.md."""
