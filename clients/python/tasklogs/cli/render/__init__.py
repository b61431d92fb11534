"""What people see of the command line: text, tables, JSON, screens.

No calls and no options; each module turns values into lines.
"""
