"""The command line: every command is a thin shell over the use cases. Errors are one sentence; never a traceback.

Exit codes: 0 done, 1 it failed, 2 the command was used wrongly.
"""
