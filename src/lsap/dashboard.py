"""`python -m lsap.dashboard domain=demo`: the workspace in which Weights & Biases shows the runs of a domain.

Its panels refer to what `lsap.pipelines.wandb_logging` logs. The definition is always written to a file. With a W&B
login it is also pushed, and replaces what an earlier push made.
"""

from lsap.cli.command import command

main = command("dashboard", "lsap.pipelines.dashboard:dashboard")

if __name__ == "__main__":
    main()
