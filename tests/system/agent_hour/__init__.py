"""An hour of an agent on a bad machine: full disks, log readers that leave, slow names, clocks.

`python -m tests.system.agent_hour --help`; docs/development.md says what it prints.
"""
