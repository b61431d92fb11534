"""The output of the commands: text, tables, JSON, screens, notices.

No calls and no options: each module turns values into lines.
"""
