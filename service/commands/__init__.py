"""terminal → **commands** that need no torch, a module a command.

serve     settings → a running service
classify  files, folders, globs → answers
models    a folder of bundles → a table
doctor    host, bundles → findings
host      those of the host: cores, memory, files, packages
"""

DEVICE_HELP = "cuda fails where no GPU works; auto takes the CPU there."
PRECISION_HELP = "Graph to run; auto takes the best one for the device."
