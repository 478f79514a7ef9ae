"""`python -m lsap.compare`: encoders that differ only in lambda_nscd, side by side on one page. `make demo` runs it."""

from lsap.cli.command import command

main = command("compare", "lsap.pipelines.comparison:compare", "lsap.config.checks:check_training")

if __name__ == "__main__":
    main()
