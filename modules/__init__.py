"""The parts that GPT-2 is built from."""
