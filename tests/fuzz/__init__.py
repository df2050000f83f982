"""The fuzzer: commands with mutated words and files; see CONTRIBUTING.md.

Every case must end with a documented exit code and no traceback, and write only where its command
may write. A run with a changed file must give the same results, or a sentence about the file.
"""
